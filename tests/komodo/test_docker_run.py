"""The commands that replace a container which was started by `docker run`."""

from __future__ import annotations

from typing import Any

from komodo.agent.docker_run import replacement

ID = "0123456789ab" + "0" * 52
IMAGE: dict[str, Any] = {"Config": {"Env": ["PATH=/usr/bin"], "Cmd": ["periphery"]}}
ENTRY: dict[str, Any] = {
    "Id": ID,
    "Name": "/komodo periphery",
    "Config": {
        "Image": "ghcr.io/mbecker20/periphery:latest",
        "Hostname": "0123456789ab",
        "Env": ["PERIPHERY_PASSKEYS=hunter2", "TZ=Etc/UTC", "PATH=/usr/bin"],
        "Cmd": ["periphery"],
        "Labels": {
            "org.opencontainers.image.licenses": "GPL-3.0",
            "komodo.skip": "",
            "team": "a b",
            "proxy.basic-auth": "me:$apr1$x",
        },
    },
    "HostConfig": {
        "NetworkMode": "default",
        "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3},
        "PortBindings": {"8120/tcp": [{"HostIp": "10.0.0.1", "HostPort": "8120"}, {"HostIp": "::1", "HostPort": "1"}]},
        "PidMode": "host",
        "CapAdd": ["SYS_ADMIN"],
    },
    "Mounts": [
        {"Type": "bind", "Source": "/var/run/docker.sock", "Destination": "/var/run/docker.sock", "RW": True},
        {"Type": "volume", "Name": "repos", "Source": "/var/lib/docker/x", "Destination": "/etc/komodo", "RW": False},
    ],
}

LINES = r"""docker pull ghcr.io/moghtech/komodo-periphery:2.3.2
(umask 077; docker inspect -f '{{range .Config.Env}}{{println .}}{{end}}' 'komodo periphery' | grep -E '^(PERIPHERY_PASSKEYS|TZ)=' > 'komodo periphery'.env)
(umask 077; docker inspect -f '{{range $name, $value := .Config.Labels}}{{printf "%s=%s\n" $name $value}}{{end}}' 'komodo periphery' | grep -E '^(team|proxy\.basic-auth)=' > 'komodo periphery'.labels)
docker stop 'komodo periphery' && docker rename 'komodo periphery' 'komodo periphery-v1'
docker run -d --name 'komodo periphery' --init --restart on-failure:3 -p 10.0.0.1:8120:8120 -p '[::1]:1:8120' --cap-add SYS_ADMIN --pid host -v /var/run/docker.sock:/var/run/docker.sock -v repos:/etc/komodo:ro -v 'komodo periphery-keys:/config/keys' --env-file 'komodo periphery.env' --label-file 'komodo periphery.labels' -e PERIPHERY_CORE_PUBLIC_KEYS="<Core's public key>" ghcr.io/moghtech/komodo-periphery:2.3.2"""  # noqa: E501


def test_every_option_of_the_old_container_is_given_to_the_new_one() -> None:
    lines = replacement(ENTRY, IMAGE, "2.3.2")
    assert lines == LINES
    assert "hunter2" not in lines
    assert "apr1" not in lines


def test_of_a_v2_container_its_own_command_keys_and_settings_stay() -> None:
    config = ENTRY["Config"] | {
        "Image": "ghcr.io/moghtech/komodo-periphery:2.3.1",
        "Cmd": ["periphery", "--config-path", "/x.toml"],
        "Env": ["PERIPHERY_CONFIG_PATHS=/config", "PATH=/usr/bin"],
        "Hostname": "nas",
    }
    mounts = [{"Type": "volume", "Name": "keys", "Destination": "/config/keys"}]
    entry = ENTRY | {"Config": config, "Mounts": mounts, "HostConfig": {"NetworkMode": "host"}}
    last = replacement(entry, {"Config": {"Env": config["Env"], "Cmd": ["periphery"]}}, "2.3.2").splitlines()[-1]
    assert "--network host" in last
    assert "--hostname nas" in last
    assert "-v keys:/config/keys " in last
    assert "--env-file" not in last
    assert last.endswith("ghcr.io/moghtech/komodo-periphery:2.3.2 periphery --config-path /x.toml")
