"""What `komodo-upgrade init` writes."""

COMMENTED_EXAMPLE = """\
# A Komodo installation and how it is upgraded from v1 to v2.
# `komodo-upgrade check` reads it and looks at every host; it changes nothing.
# Secrets are never written here: every *_env names a variable, *_file a file, *_command a command on the worker.
# Relative paths mean this file's folder, ~ the home of the user who runs the worker.

[fleet]
name = "prod"                        # one upgrade runs per name
target = "2.3.2"                     # an exact version; "2" means the newest one known

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
# url = "https://komodo.example.net" # left out: Core's published port through the SSH connection
# An admin's API key (Komodo: Settings, API Keys). Without one the upgrade works, but Core's own view stays unseen.
# api_key_env = "KOMODO_API_KEY"
# api_secret_env = "KOMODO_API_SECRET"
# All of this is found by itself; set a line only to override it.
# container = "komodo-core-1"
# project = "komodo"
# project_dir = "/etc/komodo"
# compose_files = ["/etc/komodo/compose.yaml"]
# env_file = "/etc/komodo/compose.env"
# keys_mount = "bind"                # ./keys beside the compose file; "volume": a named volume

[rollout]
mode = "waves"                       # together: all agents with Core, their key made beforehand; then take out
                                     # canary, wave and approve: nobody is asked after gate `core`
canary = 1                           # servers before the first wide wave
wave = 1                             # servers at a time after that; "25%" works too
approve = "each-wave"                # each-server | each-wave | canary | core-only
on_failure = "ask"                   # ask | go-on (up to max_failures)
max_failures = 0
gate_reminder = "4h"
gate_timeout = "3d"
on_gate_timeout = "hold"             # hold | stop
leave_behind = []                    # Servers of Core that stay on v1 on purpose
offline = "wait"                     # a server that is away: wait (set aside, upgraded on return) | leave | refuse
# offline_for = "24h"                # wait: how long, counted from when the others are done
# offline_look = "10m"               # between two looks
# dead_man = "15m"                   # a host puts its agent back by itself when Core has not confirmed it by then

[verify]
# restart_stack = "web"              # the guide's end-to-end check; nothing is restarted unless named here

[watch]                              # after the upgrade, by itself; nobody waits for it
# lasts = "6h"                       # zombies, servers, stats; "off": not
# every = "1h"
# backup_within = "26h"              # the next day: did the automatic backup run? "off": not looked at

[agent]
# method = "binary"                  # script: Komodo's own setup script, the old binary saved first
# download = "auto"                  # host | worker: who fetches the binary
# url = "https://github.com/moghtech/komodo/releases/download/v{version}/periphery-{arch}"
# sha256 = { x86_64 = "…64 hexadecimal digits…" }

[notify]
# command = "/usr/local/bin/tell-ops" # run on the worker, the message on its standard input

[timing]
# core_ready = "3m"                  # from `up -d` until Core answers
# agent_ready = "45s"                # from an agent's start until its journal shows the loaded config
# core_sees = "90s"                  # from an agent's start until Core confirms it

[[server]]
name = "web-1"                       # exactly as Komodo shows it
host = "10.0.0.11"
# install = "auto"                   # systemd | systemd-user | container
# connection = "inbound"             # outbound: the agent connects to Core
# dead_man = "off"                   # or a time of its own

# [[server]]
# name = "db-1"
# host = "db-1.example.net"
# user = "ops"
# sudo = { password_env = "DB_SUDO_PASSWORD" }
"""
