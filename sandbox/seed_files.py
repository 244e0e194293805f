"""The files a fleet starts with: a compose project in the shape of v1.19.5's official one, agents in five shapes.

Written by ourselves; the shapes (variables with defaults, `env_file`, an agent in Core's own project, the unit with
`/bin/sh -lc`) are those of v1.19.5:compose/ and v1.19.5:scripts/setup-periphery.py.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path

COMPOSE = """# Komodo, with MongoDB
# core + a periphery for this machine; the other servers run periphery under systemd

services:
  mongo:
    image: mongo
    labels:
      komodo.skip: # never stopped by StopAllContainers
    command: --quiet --wiredTigerCacheSizeGB 0.25
    restart: unless-stopped
    # ports:
    #   - 27017:27017
    volumes:
      - mongo-data:/data/db
      - mongo-config:/data/configdb
    environment:
      MONGO_INITDB_ROOT_USERNAME: ${KOMODO_DB_USERNAME}
      MONGO_INITDB_ROOT_PASSWORD: ${KOMODO_DB_PASSWORD}

  core:
    image: ghcr.io/moghtech/komodo-core:${COMPOSE_KOMODO_IMAGE_TAG:-latest}
    labels:
      komodo.skip: # never stopped by StopAllContainers
    restart: unless-stopped
    depends_on:
      - mongo
    ports:
      - 9120:9120
    env_file: ./compose.env
    environment:
      KOMODO_DATABASE_ADDRESS: mongo:27017
      KOMODO_DATABASE_USERNAME: ${KOMODO_DB_USERNAME}
      KOMODO_DATABASE_PASSWORD: ${KOMODO_DB_PASSWORD}
    volumes:
      ## dated backups of the database
      - ${COMPOSE_KOMODO_BACKUPS_PATH}:/backups

  periphery:
    image: ghcr.io/moghtech/komodo-periphery:${COMPOSE_KOMODO_IMAGE_TAG:-latest}
    labels:
      komodo.skip: # never stopped by StopAllContainers
    restart: unless-stopped
    env_file: ./compose.env
    volumes:
      - /var/run/docker.sock:/var/run/docker.sock
      - /proc:/proc
      ## must be the same path inside and outside
      - ${PERIPHERY_ROOT_DIRECTORY:-/etc/komodo}:${PERIPHERY_ROOT_DIRECTORY:-/etc/komodo}

volumes:
  # Mongo
  mongo-data:
  mongo-config:
"""

FERRETDB = """  postgres:
    image: ghcr.io/ferretdb/postgres-documentdb:17
    labels:
      komodo.skip: # never stopped by StopAllContainers
    restart: unless-stopped
    volumes:
      - postgres-data:/var/lib/postgresql/data
    environment:
      POSTGRES_USER: ${KOMODO_DB_USERNAME}
      POSTGRES_PASSWORD: ${KOMODO_DB_PASSWORD}
      POSTGRES_DB: postgres

  mongo:
    image: ghcr.io/ferretdb/ferretdb:2.7.0
    labels:
      komodo.skip: # never stopped by StopAllContainers
    restart: unless-stopped
    depends_on:
      - postgres
    environment:
      FERRETDB_POSTGRESQL_URL: postgres://${KOMODO_DB_USERNAME}:${KOMODO_DB_PASSWORD}@postgres:5432/postgres

"""


def compose_text(database: str) -> str:
    """The project with `mongo` or `ferretdb` (in the shape of v1.19.5:compose/ferretdb.compose.yaml)."""
    if database == "mongo":
        return COMPOSE
    begin, end = COMPOSE.index("  mongo:\n"), COMPOSE.index("  core:\n")
    text = COMPOSE[:begin] + FERRETDB + COMPOSE[end:]
    return text.replace("  # Mongo\n  mongo-data:\n  mongo-config:\n", "  # Postgres\n  postgres-data:\n")


ENV = """# Komodo: variables of the project. Also handed to core and periphery (env_file)

## an exact version, or `latest`
COMPOSE_KOMODO_IMAGE_TAG={tag}
COMPOSE_KOMODO_BACKUPS_PATH={root}/etc/komodo/backups

## database
KOMODO_DB_USERNAME=komodo
KOMODO_DB_PASSWORD={db_password}

## between Core and Periphery
KOMODO_PASSKEY={passkey}

TZ=Etc/UTC

#=- Core -=#

KOMODO_HOST={host}
KOMODO_TITLE=Komodo
## the agent in Core's project
KOMODO_FIRST_SERVER=https://periphery:8120
KOMODO_FIRST_SERVER_NAME=Local
KOMODO_DISABLE_CONFIRM_DIALOG=false

KOMODO_MONITORING_INTERVAL="{interval}"
KOMODO_RESOURCE_POLL_INTERVAL="1-hr"

KOMODO_WEBHOOK_SECRET={webhook_secret}
KOMODO_JWT_SECRET={jwt_secret}
KOMODO_JWT_TTL="1-day"

KOMODO_LOCAL_AUTH=true
KOMODO_INIT_ADMIN_USERNAME=admin
KOMODO_INIT_ADMIN_PASSWORD={admin_password} # change after the first login
KOMODO_DISABLE_USER_REGISTRATION=true
KOMODO_ENABLE_NEW_USERS=false
KOMODO_TRANSPARENT_MODE=false

KOMODO_OIDC_ENABLED=false
# KOMODO_OIDC_PROVIDER=https://oidc.provider.internal/application/o/komodo

#=- Periphery -=#

PERIPHERY_ROOT_DIRECTORY={root}/etc/komodo
## must include KOMODO_PASSKEY
PERIPHERY_PASSKEYS=${{KOMODO_PASSKEY}}
PERIPHERY_DISABLE_TERMINALS=false
PERIPHERY_SSL_ENABLED=true
PERIPHERY_INCLUDE_DISK_MOUNTS=/etc/hostname
"""

_PLAIN = """## Komodo Periphery

## port of the agent's server
port = 8120
bind_ip = "[::]"

## everything the agent keeps
root_directory = "/etc/komodo"
# repo_dir = "/etc/komodo/repos"

disable_terminals = false
disable_container_exec = false

stats_polling_rate = "5-sec"
container_stats_polling_rate = "30-sec"
legacy_compose_cli = false

include_disk_mounts = []
exclude_disk_mounts = []

########
# AUTH #
########

allowed_ips = []

## who may call: Core's passkey
passkeys = [{passkeys}]

############
# Security #
############

ssl_enabled = true
# ssl_key_file = "/etc/komodo/ssl/key.pem"

###########
# LOGGING #
###########

logging.level = "info"
logging.stdio = "standard"
logging.opentelemetry_service_name = "Periphery"
logging.pretty = false
pretty_startup_config = false

# [[git_provider]]
# domain = "github.com"

# [secrets]
# SECRET_1 = "value_1"
"""

_EDITED = """# Periphery on this box -- edited by hand, please keep the notes!
# 2024-11-02  first install
# 2025-06-18  moved the repos to the big disk (passkeys = [] was the default then, ticket 114)
port = 8120            # open in the firewall for Core only
bind_ip = "[::]"

root_directory = "/etc/komodo"   # everything lives here
repo_dir = "/srv/komodo/repos"   # big disk
#stack_dir = "/etc/komodo/stacks"

stats_polling_rate = "5-sec"
container_stats_polling_rate = "30-sec"
disable_container_exec = true    # policy of ours

# who may call us
allowed_ips = [
  "::ffff:{core}",   # Core
  "{core}/32",
]

passkeys = [ "{passkey}" ]   # same as KOMODO_PASSKEY in Core's compose.env
## core_public_keys = "not yet"

ssl_enabled = true
logging.level = "info"   # debug to diagnose problems

# --- accounts ---
[[git_provider]]
domain = "git.example.internal"
https = true
accounts = [
	{{ username = "deploy", token = "{git_token}" }}, # expires in May
]

[secrets]
# used by the stack "web"
DB_PASSWORD = "{stack_secret}"
API_TOKEN = 'single # quoted'
"""

UNIT = """[Unit]
Description=Agent to connect with Komodo Core

[Service]
Environment="HOME={root}/root"
ExecStart=/bin/sh -lc "{binary} --config-path {config}"
Restart=on-failure
TimeoutStartSec=0

[Install]
WantedBy=default.target
"""

DROP_IN = """# owner: the platform team
[Service]
Nice=5
Environment=PERIPHERY_STATS_POLLING_RATE=10-sec
LimitNOFILE=65536
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Secrets:
    """Every secret of a fleet."""

    passkey: str
    db_password: str
    webhook_secret: str
    jwt_secret: str
    admin_password: str
    git_token: str
    stack_secret: str
    sudo_password: str
    api_secret: str

    def all(self) -> tuple[str, ...]:
        """For leak tests."""
        return (self.passkey, self.db_password, self.webhook_secret, self.jwt_secret, self.admin_password,
                self.git_token, self.stack_secret, self.sudo_password, self.api_secret)  # fmt: skip


SHAPES = ("plain", "sudo", "open", "edited", "plain")
"""Of the first five servers; later ones are plain."""
NAMES = ("web-1", "db-1", "nas", "build-1", "web-2")


def write_project(root: Path, *, tag: str, host: str, interval: str, secrets: Secrets, database: str = "mongo") -> Path:
    """Core's compose project. Returns its folder."""
    folder = root / "opt/komodo"
    folder.mkdir(parents=True, exist_ok=True)
    (root / "etc/komodo/backups").mkdir(parents=True, exist_ok=True)
    (folder / "mongo.compose.yaml").write_text(compose_text(database))
    text = ENV.format(
        tag=tag, root=root, host=host, interval=interval, passkey=secrets.passkey, db_password=secrets.db_password,
        webhook_secret=secrets.webhook_secret, jwt_secret=secrets.jwt_secret, admin_password=secrets.admin_password,
    )  # fmt: skip
    env = folder / "compose.env"
    env.write_text(text)
    env.chmod(0o600)
    return folder


def write_agent(root: Path, shape: str, *, binary: bytes, core: str, secrets: Secrets) -> None:
    """One agent under systemd: binary, config, unit, perhaps a drop-in."""
    place = root / ("opt/periphery/bin/periphery" if shape == "edited" else "usr/local/bin/periphery")
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(binary)
    place.chmod(0o755)
    config = root / "etc/komodo/periphery.config.toml"
    config.parent.mkdir(parents=True, exist_ok=True)
    if shape == "edited":
        text = _EDITED.format(
            core=core, passkey=secrets.passkey, git_token=secrets.git_token, stack_secret=secrets.stack_secret
        )
        (root / "srv/komodo/repos").mkdir(parents=True, exist_ok=True)
        drop_in = root / "etc/systemd/system/periphery.service.d/override.conf"
        drop_in.parent.mkdir(parents=True, exist_ok=True)
        drop_in.write_text(DROP_IN)
    else:
        text = _PLAIN.format(passkeys="" if shape == "open" else f'"{secrets.passkey}"')
    config.write_text(text)
    config.chmod(0o640 if shape == "edited" else 0o600)
    units = root / "etc/systemd/system"
    units.mkdir(parents=True, exist_ok=True)
    (units / "periphery.service").write_text(UNIT.format(root=root, binary=place, config=config))
    wants = units / "default.target.wants"
    wants.mkdir(exist_ok=True)
    link = wants / "periphery.service"
    if not link.is_symlink():
        link.symlink_to(units / "periphery.service")
    key = root / "etc/komodo/ssl/key.pem"  # an agent that has run before has its certificate
    key.parent.mkdir(parents=True, exist_ok=True)
    key.write_text("not a real key\n")


def server_name(position: int) -> str:
    """web-1, db-1, nas, build-1, web-2, then web-3, web-4, …"""
    return NAMES[position] if position < len(NAMES) else f"web-{position - 2}"


def invent_secrets() -> Secrets:
    """Random ones, so that a search for them finds only them."""
    new = secrets.token_hex
    return Secrets(
        passkey=f"pk{new(14)}", db_password=f"db{new(14)}", webhook_secret=f"wh{new(14)}", jwt_secret=f"jw{new(14)}",
        admin_password=f"ad{new(14)}", git_token=f"gt{new(14)}", stack_secret=f'st{new(8)} = [with] #odd',
        sudo_password=f"su{new(10)}", api_secret=f"as{new(14)}",
    )  # fmt: skip
