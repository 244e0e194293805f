"""What `komodo-upgrade init` writes."""

COMMENTED_EXAMPLE = """\
# A Komodo installation and how it is upgraded from v1 to v2.
# `komodo-upgrade check` reads it and surveys every host; it changes nothing.
# `komodo-upgrade discover` adds the servers that Core knows, with what [ssh] and [core] say.
# No secret is written here: *_env names a variable, *_file a file, *_command a command, each on the worker.
# Relative paths start in this file's folder; ~ is the home of the user who runs the worker.

[fleet]
name = "prod"                        # one upgrade runs per name
target = "2.3.3"                     # an exact version; "2" means the newest one known

[ssh]                                # for all hosts; [core] and every [[server]] may have keys of their own
user = "ops"                         # left out: as ~/.ssh/config says
# port = 22
# key_files = ["~/.ssh/id_ed25519"]  # left out: ~/.ssh/config, the SSH agent, the usual files
# passphrase_env = "SSH_PASSPHRASE"  # of an encrypted key; or passphrase_file, passphrase_command
known_hosts = "~/.ssh/known_hosts"   # host keys are always checked
# ssh_config = "~/.ssh/config"       # "none": read no config
# jump = "ops@bastion.example.net"
sudo = "passwordless"                # "none" where the user is root; or { password_env = "SUDO_PASSWORD" }
# state_dir = "/var/lib/komodo-upgrade"   # backups live there, on each host
# connect_timeout = "15s"

[core]
host = "core.example.net"            # the machine that runs Komodo Core with Docker Compose
# agents_url = "wss://komodo.example.net" # where agents reach Core, for connection = "outbound"
# url = "https://komodo.example.net" # left out: Core's published port through the SSH connection
# An admin's API key (Komodo: Settings, API Keys). Without one the upgrade works, but cannot check Core's own view.
# api_key_env = "KOMODO_API_KEY"
# api_secret_env = "KOMODO_API_SECRET"
# All of this is detected; set a line only to override it.
# container = "komodo-core-1"
# project = "komodo"
# project_dir = "/etc/komodo"
# compose_files = ["/etc/komodo/compose.yaml"]
# env_file = "/etc/komodo/compose.env"
# files = "edit"                     # external: others make the edits of `plan --patch`, and the upgrade expects them
# keys_mount = "bind"                # ./keys next to the compose file; "volume": a named volume

[rollout]
mode = "waves"                       # all-at-once: all agents with Core, whose key is made in advance; then remove
                                     # canary, wave and approve: there is no gate after `core`
canary = 1                           # servers before the first wide wave
wave = 1                             # servers at a time after that; "25%" works too
approve = "each-wave"                # each-server | each-wave | canary | core-only
on_failure = "ask"                   # ask | continue (up to max_failures)
max_failures = 0
gate_reminder = "4h"
gate_timeout = "3d"
on_gate_timeout = "hold"             # hold | stop
# window = "Sat,Sun 22:00-05:00 Europe/Berlin" # Core and waves begin only then; or a list of several
# order = ["label:edge", "*"]        # groups, one after the other; a server's name works, too
leave_behind = []                    # Servers of Core that stay on v1 on purpose
offline = "wait"                     # an offline server: wait (deferred, upgraded on return) | leave | refuse
# offline_for = "24h"                # wait: for so long after the other servers are done
# offline_check = "10m"              # between two checks
# auto_rollback = "15m"              # a host restores its old agent if Core has not confirmed the new one by then

[verify]
# soak = "10m"                       # watch the servers of each wave for so long before the next one begins
# restart_stack = "web"              # the guide's end-to-end check; nothing is restarted unless named here

[checks]
# ignore = ["KU023"]                 # warnings that are known: `komodo-upgrade check --explain KU023`
# reason = "Renovate is paused"      # required with ignore; the report shows it

[watch]                              # checks after the upgrade, in the background
# lasts = "6h"                       # zombies, servers, stats; "off": none
# every = "1h"
# backup_within = "26h"              # the next day: did the automatic backup run? "off": no check

[agent]
# pin = "file"                       # inline: Core's key in the config, where a rotation of Core's keys cuts it off
# method = "binary"                  # script: Komodo's own setup script, the old binary saved first
# download = "auto"                  # host | worker: who fetches the binary
# url = "https://github.com/moghtech/komodo/releases/download/v{version}/periphery-{arch}"
# sha256 = { x86_64 = "…64 hexadecimal digits…" }

[notify]
# urls_file = "notify.urls"          # one address a line, for 100 services: ntfys://…, discord://…, mailtos://…
# events = ["gate", "reminder", "failure", "end", "watch"]
# command = "/usr/local/bin/notify-ops" # runs on the worker with the message on its standard input
# dashboard = "https://upgrade.example.net" # messages link to it

[timing]
# core_ready = "3m"                  # from `up -d` until Core answers
# agent_ready = "45s"                # from an agent's start until its journal shows the loaded config
# core_sees = "90s"                  # from an agent's start until Core confirms it

[[server]]
name = "web-1"                       # exactly as Komodo shows it
host = "10.0.0.11"
# install = "auto"                   # systemd | systemd-user | container
# connection = "inbound"             # left out: stays as it is, also where the agent connects to Core
# labels = ["edge"]                  # for [rollout] order
# auto_rollback = "off"              # or a duration of its own

# [[server]]
# name = "db-1"
# host = "db-1.example.net"
# user = "ops"
# sudo = { password_env = "DB_SUDO_PASSWORD" }
"""
