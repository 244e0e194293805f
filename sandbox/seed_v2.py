"""The files of a fleet that was installed as v2: a Compose project and agents in the shape of v2.0.0's official ones.

Written by ourselves. Core and the agent in its project share the named volume `keys`; that agent connects to Core by
itself (v2.0.0:compose/). The other agents are inbound, under systemd, and pin Core's key.
"""

from __future__ import annotations

from pathlib import Path

from sandbox.machine.host import SandboxHost
from sandbox.mongo.store import Store
from sandbox.seed_files import Secrets

_CORE = """  core:
    image: ghcr.io/moghtech/komodo-core:${COMPOSE_KOMODO_IMAGE_TAG:-2}
    init: true
    restart: unless-stopped
    depends_on:
      - mongo
    ports:
      - 9120:9120
    env_file: ./compose.env
    environment:
      KOMODO_DATABASE_ADDRESS: mongo:27017
    volumes:
      ## shared with periphery
      - keys:/config/keys
      - ${COMPOSE_KOMODO_BACKUPS_PATH}:/backups

  periphery:
    image: ghcr.io/moghtech/komodo-periphery:${COMPOSE_KOMODO_IMAGE_TAG:-2}
    init: true
    restart: unless-stopped
    depends_on:
      - core
    env_file: ./compose.env
    volumes:
      - keys:/config/keys
      - /var/run/docker.sock:/var/run/docker.sock
      - /proc:/proc
      - ${PERIPHERY_ROOT_DIRECTORY:-/etc/komodo}:${PERIPHERY_ROOT_DIRECTORY:-/etc/komodo}

"""
_MONGO = """  mongo:
    image: mongo
    labels:
      komodo.skip: # never stopped by StopAllContainers
    command: --quiet --wiredTigerCacheSizeGB 0.25
    restart: unless-stopped
    volumes:
      - mongo-data:/data/db
      - mongo-config:/data/configdb
    environment:
      MONGO_INITDB_ROOT_USERNAME: ${KOMODO_DATABASE_USERNAME}
      MONGO_INITDB_ROOT_PASSWORD: ${KOMODO_DATABASE_PASSWORD}

"""
_FERRETDB = """  postgres:
    image: ghcr.io/ferretdb/postgres-documentdb:17
    restart: unless-stopped
    volumes:
      - postgres-data:/var/lib/postgresql/data
    environment:
      POSTGRES_USER: ${KOMODO_DATABASE_USERNAME}
      POSTGRES_PASSWORD: ${KOMODO_DATABASE_PASSWORD}
      POSTGRES_DB: postgres

  mongo:
    image: ghcr.io/ferretdb/ferretdb:2.7.0
    restart: unless-stopped
    depends_on:
      - postgres
    environment:
      FERRETDB_POSTGRESQL_URL: postgres://${KOMODO_DATABASE_USERNAME}:${KOMODO_DATABASE_PASSWORD}@postgres:5432/postgres

"""
_VOLUMES = {"mongo": "  mongo-data:\n  mongo-config:\n", "ferretdb": "  postgres-data:\n"}

_ENV = """# Komodo: variables of the project. Also handed to core and periphery (env_file)

## "2", or an exact version
COMPOSE_KOMODO_IMAGE_TAG="{tag}"
COMPOSE_KOMODO_BACKUPS_PATH={root}/etc/komodo/backups

KOMODO_DATABASE_USERNAME=komodo
KOMODO_DATABASE_PASSWORD={db_password}

TZ=Etc/UTC

#=- Core -=#

KOMODO_HOST={host}
KOMODO_TITLE=Komodo
## Periphery may connect with the key that it makes
KOMODO_PERIPHERY_PUBLIC_KEY=file:/config/keys/periphery.pub
KOMODO_LOCAL_AUTH=true
KOMODO_INIT_ADMIN_USERNAME=admin
KOMODO_INIT_ADMIN_PASSWORD={admin_password}
KOMODO_FIRST_SERVER_NAME=Local
KOMODO_MONITORING_INTERVAL="{interval}"
KOMODO_WEBHOOK_SECRET={webhook_secret}
KOMODO_JWT_SECRET={jwt_secret}

#=- Periphery -=#

## connects to Core
PERIPHERY_CORE_ADDRESS=ws://core:9120
PERIPHERY_CONNECT_AS=${{KOMODO_FIRST_SERVER_NAME}}
PERIPHERY_CORE_PUBLIC_KEYS=file:/config/keys/core.pub
PERIPHERY_ROOT_DIRECTORY={root}/etc/komodo
PERIPHERY_INCLUDE_DISK_MOUNTS=/etc/hostname
"""

_CONFIG = """root_directory = "/etc/komodo"
disable_terminals = false
disable_container_terminals = false
stats_polling_rate = "5-sec"

## Core's key
core_public_keys = "{key}"

port = 8120
bind_ip = "[::]"
allowed_ips = []
ssl_enabled = true
logging.level = "info"
logging.stdio = "standard"
"""


_OUTBOUND = """# Managed by ansible
root_directory = "{root}/etc/komodo"
core_addresses = ["ws://{core}:9120"]
connect_as = "{name}"
core_public_keys = ["file:{root}/etc/komodo/keys/core.pub"]
stats_polling_rate = "5-sec"
logging.level = "info"
"""


def write_project(
    root: Path, *, tag: str, host: str, interval: str, secrets: Secrets, database: str, keys_mounted: bool
) -> None:
    """Core's Compose project. Without `keys_mounted` the key pairs are inside the containers."""
    folder = root / "opt/komodo"
    folder.mkdir(parents=True, exist_ok=True)
    (root / "etc/komodo/backups").mkdir(parents=True, exist_ok=True)
    services = (_FERRETDB if database == "ferretdb" else _MONGO) + _CORE
    text = f"services:\n{services}volumes:\n{_VOLUMES[database]}  # Core / Periphery\n  keys:\n"
    if not keys_mounted:
        text = text.replace("      ## shared with periphery\n", "").replace("      - keys:/config/keys\n", "")
        text = text.replace("  # Core / Periphery\n  keys:\n", "")
    (folder / "mongo.compose.yaml").write_text(text)
    env = folder / "compose.env"
    env.write_text(
        _ENV.format(
            tag=tag,
            root=root,
            host=host,
            interval=interval,
            db_password=secrets.db_password,
            webhook_secret=secrets.webhook_secret,
            jwt_secret=secrets.jwt_secret,
            admin_password=secrets.admin_password,
        )
    )
    env.chmod(0o600)


async def configure(host: SandboxHost, store: Store, key: str, core: str) -> None:
    """An agent of v2: an inbound one that pins Core's key, or one that connects to the address `core` by itself.

    The latter keeps the key of the first Core that it sees, and its Server has no address.
    """
    service = host.systemd.services["periphery.service"]
    assert service.agent is not None
    text = _CONFIG.format(key=key)
    if core:
        text = _OUTBOUND.format(root=host.root, core=core, name=host.name)
        known = {"$set": {"config.address": "", "info": {"public_key": service.agent.public_key}}}
        store.update("komodo", "Server", {"name": host.name}, known, many=False, upsert=False)
    (host.root / "etc/komodo/periphery.config.toml").write_text(text)
    await host.systemd.stop(service)
    await host.systemd.start(service)
