"""Fleet files that are wrong in one way each, and what must be said about them."""
# ruff: noqa: E501 - a table

from __future__ import annotations

HEAD = '[fleet]\nname = "prod"\ntarget = "2.3.2"\n'
CORE = '[core]\nhost = "core.example.net"\n'
SERVER = '[[server]]\nname = "web-1"\nhost = "10.0.0.11"\n'
GOOD = HEAD + CORE + SERVER


BROKEN: list[tuple[str, str, int, str, str, str]] = [
    # name, text, line, key, part of what is wrong, part of the cure
    ("no [core]", HEAD + SERVER, 0, "core", "is missing", "add a [core] table"),
    ("no [fleet]", CORE, 0, "fleet", "is missing", "add a [fleet] table"),
    ("no target", '[fleet]\nname = "a"\n' + CORE, 1, "fleet.target", "is missing", 'target = "2.3.2"'),
    ("no host", HEAD + "[core]\n", 4, "core.host", "is missing", "host ="),
    ("server without name", HEAD + CORE + '[[server]]\nhost = "a"\n', 6, "server[1].name", "is missing", "name ="),
    ("empty host", HEAD + '[core]\nhost = ""\n', 5, "core.host", "is empty", "give a value"),
    ("unknown key", GOOD + 'instal = "auto"\n', 9, "server[web-1].instal", "is unknown", "did you mean install?"),
    ("unknown table", GOOD + '[rollouts]\nwave = 1\n', 9, "rollouts", "is unknown", "did you mean rollout?"),
    ("key in the wrong table", GOOD + 'canary = 2\n', 9, "server[web-1].canary", "is unknown", "below [rollout]"),
    ("name at the top", 'name = "x"\n' + GOOD, 1, "name", "is unknown", "move it below [fleet]"),
    ("a password", HEAD + CORE + 'password = "hunter2"\n', 6, "core.password", "is unknown", "password_env"),
    ("an API key", HEAD + CORE + 'api_key = "K_secret_K"\n', 6, "core.api_key", "is unknown", "api_key_env"),
    ("host keys off", HEAD + '[ssh]\nstrict_host_keys = false\n' + CORE, 5, "ssh.strict_host_keys", "unknown", "always"),
    ("bad fleet name", GOOD.replace('"prod"', '"pro d"'), 2, "fleet.name", "cannot be the name", "63 letters"),
    ("target latest", GOOD.replace("2.3.2", "latest"), 3, "fleet.target", "is no version", 'target = "2.3.2"'),
    ("target v1", GOOD.replace("2.3.2", "1.19.5"), 3, "fleet.target", "not a v2", 'target = "2.3.2"'),
    ("target unknown line", GOOD.replace("2.3.2", "2.9"), 3, "fleet.target", "no release", 'target = "2.3.2"'),
    ("target number", GOOD.replace('"2.3.2"', "2.3"), 3, "fleet.target", "is no text", "in quotes"),
    ("user in host", GOOD.replace('"10.0.0.11"', '"ops@10.0.0.11"'), 8, "server[web-1].host", "user name", 'user = "ops"'),
    ("port in host", GOOD.replace('"10.0.0.11"', '"10.0.0.11:22"'), 8, "server[web-1].host", "holds a port", "port = 22"),
    ("brackets", GOOD.replace('"10.0.0.11"', '"[::1]"'), 8, "server[web-1].host", "brackets", "without brackets"),
    ("URL as host", GOOD.replace('"10.0.0.11"', '"ssh://x"'), 8, "server[web-1].host", "is a URL", "SSH connects to"),
    ("option as host", GOOD.replace('"10.0.0.11"', '"-oProxy=x"'), 8, "server[web-1].host", "no host name", "10.0.0.11"),
    ("port as text", GOOD + 'port = "22"\n', 9, "server[web-1].port", "whole number", "port = 1"),
    ("port too high", GOOD + "port = 70000\n", 9, "server[web-1].port", "is 70000", "at most 65535"),
    ("sudo word", GOOD + 'sudo = "yes"\n', 9, "server[web-1].sudo", "no way to become root", "passwordless"),
    ("sudo clear", GOOD + 'sudo = { password = "hunter2" }\n', 9, "server[web-1].sudo", "in the clear", "password_env"),
    ("sudo two", GOOD + 'sudo = { password_env = "A", password_file = "b" }\n', 9, "server[web-1].sudo", "one of", "sudo ="),
    ("env is a secret", HEAD + CORE + 'api_key_env = "K_abc-123"\napi_secret_env = "S"\n', 6, "core.api_key_env", "not the name", "never the secret"),
    ("half a key", HEAD + CORE + 'api_key_env = "K"\n', 6, "core.api_key_env", "stands alone", "api_secret_env"),
    ("two references", HEAD + '[ssh]\npassphrase_env = "A"\npassphrase_file = "b"\n' + CORE, 6, "ssh.passphrase_file", "beside passphrase_env", "keep one"),
    ("relative remote path", HEAD + CORE + 'project_dir = "komodo"\n', 6, "core.project_dir", "no absolute path", "begin it with /"),
    ("keys_mount", HEAD + CORE + 'keys_mount = "host"\n', 6, "core.keys_mount", 'is "host"', '"bind", "volume"'),
    ("url with path", HEAD + CORE + 'url = "https://a.b/c"\n', 6, "core.url", "not a plain", "leave it out"),
    ("together", GOOD + '[rollout]\nmode = "together"\n', 10, "rollout.mode", "not part of this version", 'wave = "100%"'),
    ("mode", GOOD + '[rollout]\nmode = "all"\n', 10, "rollout.mode", "is no mode", '"waves"'),
    ("wave zero", GOOD + '[rollout]\nwave = 0\n', 10, "rollout.wave", "no server", "25%"),
    ("wave over all", GOOD + '[rollout]\nwave = "150%"\n', 10, "rollout.wave", "more than all", "25%"),
    ("wave list", GOOD + '[rollout]\nwave = [1]\n', 10, "rollout.wave", "neither", "wave = 2"),
    ("canary", GOOD + "[rollout]\ncanary = -1\n", 10, "rollout.canary", "is -1", "at least 0"),
    ("approve", GOOD + '[rollout]\napprove = "never"\n', 10, "rollout.approve", 'is "never"', '"each-wave"'),
    ("duration number", GOOD + "[rollout]\ngate_reminder = 4\n", 10, "rollout.gate_reminder", "without a unit", '"4s"'),
    ("duration word", GOOD + '[rollout]\ngate_timeout = "soon"\n', 10, "rollout.gate_timeout", "is no duration", '"90s"'),
    ("duration zero", GOOD + '[timing]\npoll = "0s"\n', 10, "timing.poll", "no time at all", "more than zero"),
    ("duration long", GOOD + '[timing]\npoll = "400d"\n', 10, "timing.poll", "longer than a year", "366d"),
    ("unknown clock", GOOD + '[timing]\npol = "1s"\n', 10, "timing.pol", "is unknown", "did you mean poll?"),
    ("leave_behind both", GOOD + '[rollout]\nleave_behind = ["web-1"]\n', 10, "rollout.leave_behind", "upgraded too", "take it out"),
    ("same name", GOOD + '[[server]]\nname = "web-1"\nhost = "b"\n', 10, "server[web-1].name", "there twice", "named once"),
    ("same agent", GOOD + '[[server]]\nname = "web-2"\nhost = "10.0.0.11"\n', 11, "server[web-2].host", "machine and unit", "own host"),
    ("digest", GOOD + '[agent]\nsha256 = { x86_64 = "abc" }\n', 10, "agent.sha256.x86_64", "no SHA-256", "sha256sum"),
    ("architecture", GOOD + f'[agent.sha256]\narm64 = "{"a" * 64}"\n', 10, "agent.sha256.arm64", "arm64", "x86_64"),
    ("download part", GOOD + '[agent]\nurl = "https://a/{os}"\n', 10, "agent.url", "{os}", "{version} and {arch}"),
    ("table as text", GOOD + 'verify = "x"\n'.join(["", ""]), 9, "server[web-1].verify", "is unknown", "take it out"),
    ("server as table", HEAD + CORE + "[server]\n", 6, "server", "must be a list", "[[server]]"),
    ("key files", GOOD + "key_files = 5\n", 9, "server[web-1].key_files", "neither a path", "key_files ="),
    ("jump", GOOD + 'jump = "a b"\n', 9, "server[web-1].jump", "no jump host", "bastion"),
    ("install", GOOD + 'install = "snap"\n', 9, "server[web-1].install", 'is "snap"', '"systemd"'),
    ("blank name", GOOD.replace('"web-1"', '" web-1"'), 7, "server[ web-1].name", "blanks", "exactly as Komodo"),
]  # fmt: skip
