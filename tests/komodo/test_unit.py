"""systemd's words about a unit, in the forms people have."""

from __future__ import annotations

import pytest

from komodo.agent import unit

TEMPLATE = """\
Restart=on-failure
MainPID=4711
NRestarts=0
ExecStart={{ path={path} ; argv[]={argv} ; ignore_errors=no ; start_time=[n/a] ; stop_time=[n/a] ; pid=1 }}
Environment={environment}
WorkingDirectory=
User=
Id=periphery.service
LoadState=loaded
ActiveState=active
SubState=running
FragmentPath=/etc/systemd/system/periphery.service
DropInPaths=/etc/systemd/system/periphery.service.d/limits.conf
UnitFileState=enabled
InvocationID=0123456789abcdef0123456789abcdef
"""


def show(argv: str, environment: str = "HOME=/root", path: str = "") -> unit.Unit:
    return unit.parse_unit(TEMPLATE.format(path=path or argv.split(" ")[0], argv=argv, environment=environment))


CONFIG = "/etc/komodo/periphery.config.toml"


@pytest.mark.parametrize(
    ("argv", "binary", "configs"),
    [
        (f"/bin/sh -lc /usr/local/bin/periphery --config-path {CONFIG}", "/usr/local/bin/periphery", (CONFIG,)),
        (f"/bin/sh -lc exec /usr/local/bin/periphery --config-path={CONFIG}", "/usr/local/bin/periphery", (CONFIG,)),
        (f"/bin/bash -l -c /usr/local/bin/periphery -c {CONFIG}", "/usr/local/bin/periphery", (CONFIG,)),
        (f"/bin/sh -lc '/opt/my dir/periphery' --config-path \"{CONFIG}\"", "/opt/my dir/periphery", (CONFIG,)),
        (f"/usr/local/bin/periphery --config-path={CONFIG}", "/usr/local/bin/periphery", (CONFIG,)),
        (
            f"/usr/local/bin/periphery -c {CONFIG} -c /etc/komodo/more.toml",
            "/usr/local/bin/periphery",
            (CONFIG, "/etc/komodo/more.toml"),
        ),
        (
            "/usr/local/bin/periphery --config-path /etc/komodo --log-level debug",
            "/usr/local/bin/periphery",
            ("/etc/komodo",),
        ),
        ("/opt/komodo/periphery-x86_64", "/opt/komodo/periphery-x86_64", ()),
        ("/usr/local/bin/periphery -c komodo/p.toml", "/usr/local/bin/periphery", ("/komodo/p.toml",)),
        ("/bin/sh -lc /usr/local/bin/periphery -c ~/p.toml", "/usr/local/bin/periphery", ("/root/p.toml",)),
        (f"/usr/local/bin/periphery -m none -c {CONFIG}", "/usr/local/bin/periphery", (CONFIG,)),
        (
            "/bin/sh -lc $HOME/.local/bin/periphery --config-path ${HOME}/.config/komodo/p.toml",
            "/root/.local/bin/periphery",
            ("/root/.config/komodo/p.toml",),
        ),
    ],
)
def test_commands_that_are_understood(argv: str, binary: str, configs: tuple[str, ...]) -> None:
    found = show(argv)
    assert (found.binary, found.config_paths, found.refused) == (binary, configs, "")


@pytest.mark.parametrize(
    "argv",
    [
        "/usr/bin/docker run --rm ghcr.io/moghtech/komodo-periphery:latest",
        "/opt/start-periphery.sh",
        "/bin/sh /opt/start.sh",
        "/bin/sh -lc sleep 5; /usr/local/bin/periphery",
        "/bin/sh -lc /usr/local/bin/periphery --config-path $KOMODO_CONFIG",
        "/bin/sh -lc /usr/local/bin/periphery --config-path $(hostname).toml",
        "/usr/bin/nice -n 5 /usr/local/bin/periphery",
        "/bin/sh -lc '/usr/local/bin/periphery",
        "/bin/sh -lc periphery",
        "/bin/sh -lc /usr/local/bin/periphery -c ~komodo/p.toml",
        "",
    ],
)
def test_other_commands_are_refused_with_a_reason(argv: str) -> None:
    found = show(argv)
    assert found.refused
    assert not found.binary


@pytest.mark.parametrize("words", ["--config-keyword periphery", "--config-keyword=*.toml", "-m *.toml"])
def test_files_of_a_folder_that_keywords_choose_are_not_guessed(words: str) -> None:
    assert "keywords" in show(f"/usr/local/bin/periphery -c /etc/komodo {words}").refused
    assert "keywords" in show("/usr/local/bin/periphery -c /etc/komodo", "PERIPHERY_CONFIG_KEYWORDS=*.toml").refused


def test_what_only_an_environment_file_says() -> None:
    bare = show("/usr/local/bin/periphery")
    found = unit.with_settings(bare, {"PERIPHERY_CONFIG_PATHS": "/a.toml,b.toml"})
    assert (found.config_paths, found.config_source) == (("/a.toml", "/b.toml"), "the environment")
    folder = show("/usr/local/bin/periphery -c /etc/komodo")
    assert unit.with_settings(folder, {}) == folder
    assert "keywords" in unit.with_settings(folder, {"PERIPHERY_CONFIG_KEYWORDS": "*.toml"}).refused


def test_words_as_systemd_makes_them() -> None:
    """It prints the words joined by blanks, and splits a variable that stands alone."""
    spaced = show("/opt/my dir/periphery -c /etc/my dir/p.toml --log-level info", path="/opt/my dir/periphery")
    assert (spaced.binary, spaced.config_paths) == ("/opt/my dir/periphery", ("/etc/my dir/p.toml",))
    named = show(f"komodo-agent -c {CONFIG}", path="/usr/local/bin/periphery")
    assert (named.binary, named.config_paths) == ("/usr/local/bin/periphery", (CONFIG,))
    options = show("/usr/local/bin/periphery $OPTIONS", f"'OPTIONS=--log-level info -c {CONFIG}'")
    assert options.config_paths == (CONFIG,)
    unset = show("/usr/local/bin/periphery $OPTIONS")
    assert "variable" in unset.refused


def test_paths_from_the_environment_only_where_the_command_names_none() -> None:
    by_environment = show("/usr/local/bin/periphery", "HOME=/root PERIPHERY_CONFIG_PATHS=/a.toml,/b.toml")
    assert (by_environment.config_paths, by_environment.config_source) == (("/a.toml", "/b.toml"), "Environment")
    by_command = show(f"/usr/local/bin/periphery -c {CONFIG}", "PERIPHERY_CONFIG_PATH=/a.toml")
    assert (by_command.config_paths, by_command.config_source) == ((CONFIG,), "ExecStart")


def test_state_and_files() -> None:
    found = show(f"/usr/local/bin/periphery -c {CONFIG}")
    assert found.exists
    assert found.active
    assert (found.main_pid, found.restarts, found.enabled) == (4711, 0, "enabled")
    assert found.drop_ins == ("/etc/systemd/system/periphery.service.d/limits.conf",)
    assert found.invocation == "0123456789abcdef0123456789abcdef"


def test_a_unit_that_is_not_there() -> None:
    found = unit.parse_unit("Id=periphery.service\nLoadState=not-found\nActiveState=inactive\nFragmentPath=\n")
    assert not found.exists


def test_environment_is_never_shown() -> None:
    found = show("/usr/local/bin/periphery", "PERIPHERY_PASSKEYS=hunter2 'PERIPHERY_BIND_IP=a b'")
    assert found.environment["PERIPHERY_BIND_IP"] == "a b"
    assert "hunter2" not in repr(found)


def test_environment_files() -> None:
    text = TEMPLATE.format(path="/x", argv="/usr/local/bin/periphery", environment="")
    found = unit.parse_unit(text + "EnvironmentFiles=/etc/default/periphery (ignore_errors=yes)\n")
    assert found.environment_files == ("/etc/default/periphery",)
    assert unit.file_assignments("# c\nexport PERIPHERY_PORT='8121'\nOTHER=1\nperiphery_core_address=x\n") == {
        "PERIPHERY_PORT": "8121",
        "PERIPHERY_CORE_ADDRESS": "x",
    }


def test_two_spellings_are_found() -> None:
    assert unit.alias_pairs({"PERIPHERY_CONFIG_PATH": "a", "periphery_config_paths": "b"}) == (
        ("PERIPHERY_CONFIG_PATH", "PERIPHERY_CONFIG_PATHS"),
    )
    assert unit.alias_pairs({"PERIPHERY_CONFIG_PATHS": "b"}) == ()
