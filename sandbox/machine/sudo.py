"""A stand-in for sudo: with and without password, or not allowed at all; the texts are those of sudo 1.9."""

from __future__ import annotations

import shutil

from sandbox.machine.call import Become, Call

_VALUED = {"-p": "prompt", "-u": "user", "-g": "group", "-C": "", "-D": "", "-h": "", "-R": "", "-T": ""}


class _Options:
    def __init__(self, argv: list[str]) -> None:
        self.flags: set[str] = set()
        self.prompt: str | None = None
        self.assignments: dict[str, str] = {}
        rest = list(argv)
        while rest and rest[0].startswith("-") and rest[0] != "--":
            word = rest.pop(0)
            if word in _VALUED:
                value = rest.pop(0) if rest else ""
                if word == "-p":
                    self.prompt = value
            elif word.startswith("--"):
                self.flags.add({"--non-interactive": "n", "--stdin": "S", "--validate": "v"}.get(word, word))
            else:
                self.flags.update(word[1:])
        if rest and rest[0] == "--":
            rest.pop(0)
        while rest and "=" in rest[0] and rest[0].split("=")[0].isidentifier():
            key, _, value = rest.pop(0).partition("=")
            self.assignments[key] = value
        self.command = rest


async def run(call: Call) -> int | Become:
    """Authenticate as the host's sudoers file says, then become the command."""
    options = _Options(call.argv)
    host = call.host
    if options.flags & {"k", "K"} and not options.command:
        host.sudo_seen.discard(call.parent())
        return 0
    if not options.command and not options.flags & {"v", "l"}:
        call.err("usage: sudo -h | -K | -k | -V\nusage: sudo -v [-ABkNnS] [-g group] [-h host] [-p prompt] [-u user]\n")
        return 1
    seen = call.parent() in host.sudo_seen and "k" not in options.flags
    if host.sudo != "passwordless" and not call.root and not seen and not await _authenticate(call, options):
        return 1
    if host.sudo == "denied" and not call.root:
        if "v" in options.flags:
            call.err(f"Sorry, user {host.user} may not run sudo on {host.name}.\n")
        else:
            call.err(f"{host.user} is not in the sudoers file.  This incident will be reported.\n")
        return 1
    if not options.command:
        return 0
    env = host.environment(root=True)
    env.update(SUDO_USER=host.user, SUDO_UID="1000", SUDO_GID="1000", SUDO_COMMAND=options.command[0])
    if "E" in options.flags:
        env = {**call.env, **env}
    env.update(options.assignments)
    path = shutil.which(options.command[0], path=env["PATH"])
    if path is None:
        call.err(f"sudo: {options.command[0]}: command not found\n")
        return 1
    await call.flush()
    return Become(path, tuple(options.command), env)


async def _authenticate(call: Call, options: _Options) -> bool:
    host = call.host
    if "n" in options.flags:
        call.err("sudo: a password is required\n")
        return False
    if "S" not in options.flags:
        call.err(
            "sudo: a terminal is required to read the password; either use the -S option to read from standard"
            " input or configure an askpass helper\nsudo: a password is required\n"
        )
        return False
    wrong = 0
    prompt = f"[sudo] password for {host.user}: " if options.prompt is None else options.prompt
    while wrong < 3:
        call.err(prompt)
        await call.flush()
        line = await call.read_line()
        if line is None:
            break
        changed = host.world.faults.strike("sudo-wrong", host.name)
        if line.decode("utf-8", "replace") == host.sudo_password and not changed:
            host.sudo_seen.add(call.parent())
            return True
        wrong += 1
        if wrong < 3:
            call.err("Sorry, try again.\n")
    if wrong < 3:
        call.err("\nsudo: no password was provided\n" if not wrong else "")
        if not wrong:
            call.err("sudo: a password is required\n")
            return False
    call.err(f"sudo: {wrong} incorrect password attempt{'s' if wrong > 1 else ''}\n")
    return False
