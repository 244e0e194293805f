"""What v1 cannot read of v2's documents: the shapes are those that v1.19.5 and v2.3.2 wrote."""

from __future__ import annotations

from typing import Any

import pytest

from komodo.core.v1_documents import V1, Converted, alerter, builder, in_swarm, procedure, server, stack, user

V1_19_5 = V1(version=(1, 19, 5), servers={"a": "web-1", "b": "web-2", "c": "web-3"})
SWARM, HOST = {"type": "Swarm", "id": "s"}, {"type": "Server", "id": "a"}


def params(**values: Any) -> dict[str, Any]:
    return {"name": "b1", "config": {"type": "Server", "params": values}}


def stages(*kinds: str) -> dict[str, Any]:
    executions = [{"execution": {"type": kind, "params": {"x": 1}}, "enabled": True} for kind in kinds]
    return {"name": "p1", "config": {"stages": [{"name": "one", "enabled": True, "executions": executions}]}}


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ({"server_id": "a"}, None),
        (
            {"server_ids": ["b"]},
            Converted(set={"config.params.server_id": "b"}, unset=("config.params.server_ids",)),
        ),
        (
            {"server_ids": ["b", "a", "c"]},
            Converted(
                set={"config.params.server_id": "b"},
                unset=("config.params.server_ids",),
                lost="Builder b1 builds on web-2 only, not on web-1, web-3",
            ),
        ),
        ({"server_ids": []}, Converted(set={"config.params.server_id": ""}, unset=("config.params.server_ids",))),
        (
            {"image_registries": [{"domain": "r"}]},
            Converted(
                set={"config.params.docker_registries": [{"domain": "r"}]}, unset=("config.params.image_registries",)
            ),
        ),
        (
            {"image_registries": [], "docker_registries": [{"domain": "r"}]},
            Converted(unset=("config.params.image_registries",)),
        ),
    ],
)
def test_builders(values: dict[str, Any], wanted: Converted | None) -> None:
    assert builder(params(**values), V1_19_5) == wanted


def test_env_files_of_a_stack() -> None:
    def of(*files: Any) -> Converted | None:
        return stack({"name": "st", "config": {"additional_env_files": list(files)}}, V1_19_5)

    assert of("a.env") is None
    assert stack({"name": "st", "config": {}}, V1_19_5) is None
    assert of({"path": "a.env", "track": True}) == Converted(set={"config.additional_env_files": ["a.env"]})
    mixed = of({"path": "a.env", "track": False}, "b.env")
    assert mixed is not None
    assert mixed.set == {"config.additional_env_files": ["a.env", "b.env"]}
    assert mixed.lost == "Stack st tracks a.env again"


def test_executions_of_a_procedure() -> None:
    assert procedure(stages("RunAction", "Sleep"), V1_19_5) is None
    done = procedure(stages("RotateAllServerKeys", "Sleep"), V1_19_5)
    assert done is not None
    assert done.lost == "Procedure p1 loses RotateAllServerKeys"
    first, second = done.set["config.stages"][0]["executions"]
    assert first == {"execution": {"type": "None", "params": {}}, "enabled": False}
    assert second == {"execution": {"type": "Sleep", "params": {"x": 1}}, "enabled": True}
    assert procedure(stages("SendAlert"), V1_19_5) is None
    older = procedure(stages("SendAlert"), V1(version=(1, 19, 0)))
    assert older is not None
    assert older.lost == "Procedure p1 loses SendAlert"


def test_swarms_of_an_alerter() -> None:
    def of(**config: Any) -> Converted | None:
        return alerter({"name": "al", "config": config}, V1_19_5)

    assert of(alert_types=["ServerCpu"], resources=[HOST]) is None
    some = of(alert_types=["SwarmUnhealthy", "ServerCpu"], resources=[SWARM, HOST], except_resources=[SWARM])
    assert some is not None
    assert dict(some.set) == {
        "config.alert_types": ["ServerCpu"], "config.resources": [HOST], "config.except_resources": [],
    }  # fmt: skip
    only = of(alert_types=[], resources=[SWARM])
    assert only is not None
    assert only.set["config.enabled"] is False, "an empty list of resources means all of them"
    assert "is disabled" in only.lost


def test_what_is_only_lost() -> None:
    assert in_swarm({"name": "d", "config": {"swarm_id": ""}}, V1_19_5) is None
    assert in_swarm({"name": "d", "config": {"swarm_id": "s"}}, V1_19_5) == Converted(
        lost="d runs in a Swarm: v1 shows it without a server"
    )
    assert server({"name": "web", "config": {"address": "https://web:8120"}}, V1_19_5) is None
    outbound = server({"name": "out", "config": {"address": ""}}, V1_19_5)
    assert outbound is not None
    assert "out has no address" in outbound.lost
    plain = {"username": "ann", "totp": {"secret": ""}, "passkey": {"passkey": None}, "linked_logins": {}}
    assert user(plain, V1_19_5) is None
    factor = user({**plain, "totp": {"secret": "x"}}, V1_19_5)
    assert factor is not None
    assert factor.lost == "User ann logs in without the second factor made in v2"
    linked = user({**plain, "linked_logins": {"Github": {}}}, V1_19_5)
    assert linked is not None
    assert "additional logins" in linked.lost
