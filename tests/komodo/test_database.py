"""How Core logs in, what a dump is compared with, and what v2 would stumble over in Core's settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pymongo.errors import AutoReconnect, InvalidName

from komodo.core.containers import Container, parse_containers
from komodo.core.database import Database, DatabaseLogin, differences, dumped_counts, login_of
from komodo.core.settings import (
    AGENT_ALIASES,
    CORE_ALIASES,
    address_problem,
    agent_of,
    alias_findings,
    config_paths,
    host_findings,
    secret_files,
    setting_findings,
    settings_of,
)
from model.errors import DatabaseError, DatabaseUnreachable
from model.facts import CollectionCount
from tests.komodo.inspected import CORE_ENV, bind, entry, text


def core(env: dict[str, str] | None = None, mounts: list[dict[str, Any]] | None = None) -> Container:
    return parse_containers(
        text([entry("c", "ghcr.io/moghtech/komodo-core:1", env=env or CORE_ENV, mounts=mounts or [])])
    )[0]


def counted(**counts: int) -> tuple[CollectionCount, ...]:
    return tuple(CollectionCount(name=n, documents=d) for n, d in sorted(counts.items()))


def test_address_user_password() -> None:
    login = login_of(address="mongo:27017", username="admin", password="p@ss word")
    assert (login.host, login.port, login.name) == ("mongo", 27017, "komodo")
    assert login.uri() == "mongodb://admin@127.0.0.1:27017/?authSource=admin"
    assert login.config() == b'password: "p@ss word"\n'
    assert "p@ss" not in repr(login)
    assert login_of(address="ferretdb").port == 27017
    assert login_of(address="ferretdb").uri() == "mongodb://127.0.0.1:27017/"
    assert login_of(address="ferretdb").config() == b""


def test_a_user_without_password_logs_in_as_nobody() -> None:
    assert login_of(address="mongo", username="admin").username == ""


def test_uri_wins_and_is_decoded() -> None:
    login = login_of(
        uri="mongodb://us%40er:p%2Fw@db:27018/komodo?authSource=other&replicaSet=rs0", address="x", name="mine"
    )
    assert (login.host, login.port, login.username, login.password) == ("db", 27018, "us@er", "p/w")
    assert (login.auth_source, login.name) == ("other", "mine")
    assert login.uri() == "mongodb://us%40er@127.0.0.1:27018/?authSource=other"
    assert login_of(uri="mongodb://u:p@db/komodo").auth_source == "komodo"
    plain = login_of(uri="mongodb://u:p@ferretdb:27017/?authMechanism=PLAIN")
    assert "authMechanism=PLAIN" in plain.uri()


@pytest.mark.parametrize(
    "uri", ["mongodb+srv://u:p@x/", "mongodb://u:p@a,b/", "mongodb://u:p@a/?tls=true", "postgres://x"]
)
def test_what_is_not_supported_says_so_without_the_password(uri: str) -> None:
    with pytest.raises(DatabaseError) as caught:
        login_of(uri=uri)
    assert ":p@" not in str(caught.value)


@pytest.mark.parametrize("password", ["true", "12345", "a: b", 'quo"te', "ünï", "x#y", "-"])
def test_the_config_line_is_yaml_for_the_same_password(password: str) -> None:
    from ruamel.yaml import YAML

    line = DatabaseLogin(host="h", username="u", password=password).config().decode()
    assert line.count("\n") == 1
    assert YAML(typ="safe").load(line) == {"password": password}


def test_counts_of_a_dump() -> None:
    stderr = (
        "2026-11-23T20:00:00.000+0000\twriting komodo.Update to archive on stdout\n"
        "2026-11-23T20:00:00.100+0000\tdone dumping komodo.Update (1500 documents)\n"
        "2026-11-23T20:00:00.100+0000\tdone dumping komodo.Server (1 document)\n"
        "2026-11-23T20:00:00.100+0000\tdone dumping `komodo.Tag` (0 documents)\n"
        "2026-11-23T20:00:00.100+0000\tdone dumping other.Server (9 documents)\n"
    )
    assert dumped_counts(stderr, "komodo") == counted(Update=1500, Server=1, Tag=0)
    assert dumped_counts("", "komodo") == ()


def test_a_quiet_database_must_be_equal() -> None:
    one = counted(Server=3, Update=10, Tag=0)
    assert differences(counted(Server=3, Update=10), one, one, quiet=True) == ()
    assert differences(counted(Server=3, Update=9), one, one, quiet=True) == (
        "Update: 10 before, 9 in the dump, 10 after",
    )
    assert differences(counted(Server=3, Update=10), one, counted(Server=3, Update=11), quiet=True)
    assert differences((), one, one, quiet=True)


def test_a_live_database_may_move_a_little() -> None:
    before, after = counted(Server=3, Stats=5000), counted(Server=3, Stats=5004)
    assert differences(counted(Server=3, Stats=5010), before, after, quiet=False) == ()
    assert differences(counted(Server=3, Stats=2000), before, after, quiet=False)
    assert differences(counted(Stats=5000), before, after, quiet=False) == (
        "Server: 3 to 3 in the database, 0 in the dump",
    )


def test_settings_of_the_official_files() -> None:
    settings = settings_of(core(), files={})
    assert settings.database == login_of(address="mongo:27017", username="admin", password="s3cr:t/=x")
    assert settings.host_name == "demo.komo.do"
    assert settings.sources["password"] == "KOMODO_DATABASE_PASSWORD"
    assert (settings.port, settings.ssl, settings.passkey_set) == (9120, False, True)
    assert "s3cr:t" not in repr(settings)


def test_old_names_files_and_toml() -> None:
    container = core(
        {
            "KOMODO_MONGO_ADDRESS": "db",
            "komodo_database_username": "u",
            "KOMODO_DATABASE_PASSWORD": "ignored",
            "KOMODO_DATABASE_PASSWORD_FILE": "/run/secrets/db",
        },
        [bind("/opt/k/core.config.toml", "/config/config.toml"), bind("/opt/k/pw", "/run/secrets/db")],
    )
    assert secret_files(container) == {"password": "/run/secrets/db"}
    assert container.host_path("/run/secrets/db") == "/opt/k/pw"
    assert config_paths(container) == ("/opt/k/core.config.toml",)
    toml = 'host = "https://k.lan"\nport = 9121\n[database]\ndb_name = "mine"\naddress = "other"\n'
    settings = settings_of(container, files={"password": "real\n"}, configs=(toml,))
    login = settings.database
    assert login is not None
    assert (login.host, login.username, login.password, login.name) == ("db", "u", "real", "mine")
    assert (settings.port, settings.host_name) == (9121, "k.lan")
    assert settings_of(container, files={}, configs=("not = [toml",)).port == 9120


def test_a_config_folder_and_variables_in_its_files() -> None:
    container = core({"DB": "mongo-1", "DB_PASSWORD": "a$b"}, [bind("/opt/k/config/", "/config")])
    assert config_paths(container) == (
        "/opt/k/config/config.toml", "/opt/k/config/core.config.toml", "/opt/k/config/komodo.config.toml",
    )  # fmt: skip
    toml = '\ufeff[database]\naddress = "${DB}:27018"\nusername = "u"\npassword = "${DB_PASSWORD}"\n'
    login = settings_of(container, files={}, configs=(toml,)).database
    assert login is not None
    assert (login.host, login.port, login.password) == ("mongo-1", 27018, "a$b")


def test_a_config_that_only_v1_reads() -> None:
    """v1.19 fills `${VAR}` in before it reads the file, v2 afterwards."""
    container = core({"PORT": "9121"}, [bind("/b", "/backups"), bind("/opt/k/c.toml", "/config/config.toml")])
    bare = settings_of(container, files={}, configs=('port = ${PORT}\npasskey = "x"\n',))
    assert bare.port == 9121
    assert [f.code for f in setting_findings(container, bare)] == ["config-broken"]
    quoted = settings_of(container, files={}, configs=('host = "${PORT}"\npasskey = "x"\n',))
    assert setting_findings(container, quoted) == []


@pytest.mark.parametrize("host", ["komodo.example.com", "//x", "https://", "ftp://x", "komodo.lan:9120"])
def test_host_that_is_no_url(host: str) -> None:
    settings = settings_of(core({**CORE_ENV, "KOMODO_HOST": host}), files={})
    assert [f.code for f in host_findings(settings)] == ["host-not-url"]


@pytest.mark.parametrize("host", ["https://k.lan", "http://localhost:9120", ""])
def test_host_that_is_a_url(host: str) -> None:
    assert host_findings(settings_of(core({**CORE_ENV, "KOMODO_HOST": host}), files={})) == []


def test_pairs_that_end_v2() -> None:
    env = {**CORE_ENV, "KOMODO_FIRST_SERVER": "https://periphery:8120", "KOMODO_FIRST_SERVER_ADDRESS": "x"}
    assert [f.code for f in alias_findings(core(env), CORE_ALIASES)] == ["alias-pair"]
    assert alias_findings(core(env), CORE_ALIASES, commented_out=("KOMODO_FIRST_SERVER",)) == []
    assert alias_findings(core(CORE_ENV), CORE_ALIASES) == []
    assert alias_findings(core({**CORE_ENV, "KOMODO_TIMEZONE": "UTC"}), CORE_ALIASES)
    (one,) = alias_findings(core({"PERIPHERY_CONFIG_PATH": "/x"}), AGENT_ALIASES)
    assert "image sets the other" in one.text
    both = {"periphery_disable_container_exec": "1", "PERIPHERY_DISABLE_CONTAINER_TERMINALS": "1"}
    assert alias_findings(core(both), AGENT_ALIASES)


def test_settings_that_change_their_meaning() -> None:
    bare = core({"KOMODO_DATABASE_ADDRESS": "mongo"})
    assert [f.code for f in setting_findings(bare, settings_of(bare, files={}))] == [
        "default-passkey",
        "no-backups-mount",
    ]
    misspelt = core({**CORE_ENV, "KOMODO_PASSKEYS": "a"}, [bind("/b", "/backups")])
    assert [f.code for f in setting_findings(misspelt, settings_of(misspelt, files={}))] == ["misspelt-setting"]
    app = core({**CORE_ENV, "KOMODO_GITHUB_WEBHOOK_APP_APP_ID": "1"}, [bind("/b", "/backups")])
    assert [f.code for f in setting_findings(app, settings_of(app, files={}))] == ["webhook-app"]
    full = core(CORE_ENV, [bind("/b", "/backups")])
    assert setting_findings(full, settings_of(full, files={})) == []


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("https://10.0.0.1:8120", ""),
        ("10.0.0.1:8120", ""),
        ("https://Web-1.lan:8120", "upper-case"),
        ("HTTPS://web-1.lan:8120", "before its ://"),
        ("https://web-1.lan:8120/", "slash"),
        ("https://web-1.lan:443", "default port"),
        ("http://web-1.lan:80", "default port"),
        ("https://web-1.lan", ""),
    ],
)
def test_addresses_that_v2_refuses(address: str, words: str) -> None:
    problem = address_problem(address)
    assert words in problem
    assert bool(problem) is bool(words)


def test_one_agent_behind_two_addresses() -> None:
    assert agent_of("https://web-1:8120") == agent_of("https://WEB-1:8120/") == "web-1:8120"
    assert agent_of("") == ""


@pytest.mark.parametrize(("error", "kind"), [(AutoReconnect("reset"), True), (InvalidName("no such"), False)])
async def test_a_connection_that_breaks_in_a_read_is_transient(error: Exception, kind: bool) -> None:
    """It must not end an upgrade for good; what the database itself refuses does."""

    async def breaks() -> None:
        raise error

    async with Database(DatabaseLogin(host="db"), socket=Path("/nowhere/forward.sock")) as opened:
        with pytest.raises(DatabaseError, match="does not answer") as caught:
            await opened._ask(breaks())
    assert isinstance(caught.value, DatabaseUnreachable) is kind
    assert caught.value.transient is kind
