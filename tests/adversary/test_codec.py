"""The key ring, the codec and the codec server against files, bytes and requests of others."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest
from click.testing import CliRunner
from temporalio.api.common.v1 import Payload
from temporalio.converter import ActivitySerializationContext

from cli.app import cli
from model.errors import KeyRingError, NotAuthenticated
from model.gates import MADE_AT, MESSAGE_ID, REFUSED
from service.codec import key_ring
from service.codec.aead import CONTEXT, KEY, EncryptingCodec, is_refused
from service.codec.binding import OriginConverter
from service.codec.server import CodecServer
from service.embedded.state import ENV, StateDir

PROD = "workflow default/komodo-upgrade/prod"
PLAIN = Payload(metadata={"encoding": b"json/plain"}, data=b'{"verb": "pause", "actor": "ann"}')


@pytest.fixture
def file(tmp_path: Path) -> Path:
    tmp_path.chmod(0o700)
    key_ring.create(tmp_path / "key-ring")
    return tmp_path / "key-ring"


@pytest.fixture
def codec(file: Path) -> EncryptingCodec:
    return EncryptingCodec(key_ring.from_file(file), PROD)


# --- payloads ---------------------------------------------------------------------------------------------------------


def test_what_was_sealed_is_opened_with_an_id_of_its_own(codec: EncryptingCodec) -> None:
    first, second = codec.open(codec.seal(PLAIN)), codec.open(codec.seal(PLAIN))
    assert first.data == PLAIN.data
    assert first.metadata["encoding"] == b"json/plain"
    assert first.metadata[MESSAGE_ID] != second.metadata[MESSAGE_ID]
    assert codec.seal(PLAIN).data != codec.seal(PLAIN).data


def test_no_bit_can_be_changed(codec: EncryptingCodec) -> None:
    sealed = codec.seal(PLAIN)
    for place in range(len(sealed.data)):
        changed = bytearray(sealed.data)
        changed[place] ^= 1
        assert is_refused(codec.open(Payload(metadata=dict(sealed.metadata), data=bytes(changed))))
    for length in range(len(sealed.data)):
        assert is_refused(codec.open(Payload(metadata=dict(sealed.metadata), data=sealed.data[:length])))


@pytest.mark.parametrize(
    "bound_to",
    ["", "workflow default/komodo-upgrade/dev", "workflow other/komodo-upgrade/prod", f"activity stop_core {PROD[9:]}"],
)
def test_it_belongs_to_one_workflow(codec: EncryptingCodec, bound_to: str) -> None:
    """Under another context, and with the context in the metadata changed to that one."""
    sealed = codec.seal(PLAIN)
    other = EncryptingCodec(codec.ring, bound_to)
    assert is_refused(other.open(sealed))
    sealed.metadata[CONTEXT] = bound_to.encode()
    assert is_refused(other.open(sealed))
    assert is_refused(EncryptingCodec(codec.ring, display=True).open(sealed))


def test_an_activitys_payloads_belong_to_its_type(codec: EncryptingCodec) -> None:
    def of(kind: str) -> EncryptingCodec:
        return codec.with_context(
            ActivitySerializationContext(
                namespace="default", activity_id=None, activity_type=kind, activity_task_queue=None,
                workflow_id="komodo-upgrade/prod", workflow_type=None, is_local=False,
            )
        )  # fmt: skip

    sealed = of("survey_core").seal(PLAIN)
    assert not is_refused(of("survey_core").open(sealed))
    assert is_refused(of("stop_core").open(sealed))
    assert is_refused(codec.open(sealed))


@pytest.mark.parametrize(
    "payload",
    [
        PLAIN,
        Payload(),
        Payload(metadata={"encoding": REFUSED.encode()}, data=b"{}"),
        Payload(metadata={"encoding": b"binary/encrypted"}, data=b"x" * 40),
        Payload(metadata={"encoding": b"binary/encrypted", KEY: b"\xff", CONTEXT: b"\xff"}, data=b""),
        Payload(metadata={"encoding": b"json/plain", MESSAGE_ID: b"0"}, data=b"{}"),
    ],
)
def test_a_foreign_payload_becomes_a_marker_that_cannot_be_read(codec: EncryptingCodec, payload: Payload) -> None:
    marker = codec.open(payload)
    assert is_refused(marker)
    assert payload.data not in marker.data or not payload.data
    with pytest.raises(NotAuthenticated):
        OriginConverter().from_payloads([marker], [dict])


def test_nothing_is_sealed_without_a_workflow(codec: EncryptingCodec) -> None:
    with pytest.raises(ValueError, match="without a workflow"):
        EncryptingCodec(codec.ring).seal(PLAIN)


# --- the key ring -----------------------------------------------------------------------------------------------------


def test_it_is_made_once_for_the_owner_only(file: Path) -> None:
    assert file.stat().st_mode & 0o777 == 0o600
    text = file.read_text()
    key_ring.create(file)
    assert file.read_text() == text


def test_old_keys_read_and_new_keys_are_found_by_those_who_run(file: Path) -> None:
    running = EncryptingCodec(key_ring.from_file(file), PROD)
    old = running.seal(PLAIN)
    rotated = EncryptingCodec(key_ring.rotate(file), PROD)
    assert not is_refused(rotated.open(old))
    new = rotated.seal(PLAIN)
    assert new.metadata[KEY] != old.metadata[KEY]
    assert not is_refused(running.open(new)), "the file is read again"
    assert running.seal(PLAIN).metadata[KEY] == new.metadata[KEY]


@pytest.mark.parametrize("text", ["", "# only a comment", "dG9vIHNob3J0", "no base64!", "=" * 44])
def test_a_ring_without_usable_keys_is_refused(text: str, file: Path) -> None:
    file.write_text(text)
    with pytest.raises(KeyRingError):
        key_ring.from_file(file)
    with pytest.raises(KeyRingError):
        key_ring.from_environment({key_ring.ENV: text or "x"})


def test_variable_file_and_command_are_the_same_ring(file: Path) -> None:
    text = file.read_text()
    rings = [
        key_ring.from_environment({key_ring.ENV: text}),
        key_ring.from_environment({key_ring.ENV_FILE: str(file)}),
        key_ring.from_environment({key_ring.ENV_COMMAND: f"cat {file}"}),
    ]
    assert len({ring.current[0] for ring in rings if ring}) == 1
    assert key_ring.from_environment({}) is None
    with pytest.raises(KeyRingError, match="are set"):
        key_ring.from_environment({key_ring.ENV: text, key_ring.ENV_FILE: str(file)})
    with pytest.raises(KeyRingError, match="exit code 3"):
        key_ring.from_environment({key_ring.ENV_COMMAND: "echo secret; exit 3"})


def test_rotate_is_a_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENV, str(tmp_path / "state"))
    for number in (1, 2):
        done = CliRunner().invoke(cli, ["codec", "rotate", "-o", "json"])
        assert json.loads(done.stdout)["keys"] == number
    assert StateDir().key_ring.stat().st_mode & 0o777 == 0o600


# --- the codec server -------------------------------------------------------------------------------------------------

ORIGIN = "http://127.0.0.1:8233"


async def _asked(codec: EncryptingCodec, work: Callable[[httpx2.AsyncClient], object]) -> httpx2.Response:
    server = await CodecServer(ring=codec.ring, token="t0ken", origin=ORIGIN).start()
    port = server.sockets[0].getsockname()[1]
    async with server, httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        answer: httpx2.Response = await work(client)  # type: ignore[misc]
        return answer


def _body(payload: Payload) -> dict[str, object]:
    metadata = {name: base64.b64encode(value).decode() for name, value in payload.metadata.items()}
    return {"payloads": [{"metadata": metadata, "data": base64.b64encode(payload.data).decode()}]}


AUTH = {"Authorization": "Bearer t0ken"}


async def test_it_shows_any_workflows_payloads(codec: EncryptingCodec) -> None:
    answer = await _asked(codec, lambda c: c.post("/decode", json=_body(codec.seal(PLAIN)), headers=AUTH))
    [shown] = answer.json()["payloads"]
    assert base64.b64decode(shown["data"]) == PLAIN.data


async def test_it_encrypts_for_the_workflow_in_its_path_only(codec: EncryptingCodec) -> None:
    answer = await _asked(codec, lambda c: c.post("/komodo-upgrade/prod/encode", json=_body(PLAIN), headers=AUTH))
    [made] = answer.json()["payloads"]
    metadata = {name: base64.b64decode(value) for name, value in made["metadata"].items()}
    opened = codec.open(Payload(metadata=metadata, data=base64.b64decode(made["data"])))
    assert opened.data == PLAIN.data
    assert int(opened.metadata[MADE_AT]) > 1_700_000_000
    answer = await _asked(codec, lambda c: c.post("/encode", json=_body(PLAIN), headers=AUTH))
    assert answer.status_code == 400
    assert "workflow" in answer.json()["message"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"Authorization": "Bearer wrong"}, 401),
        (AUTH | {"Origin": "http://evil"}, 403),
        (AUTH | {"Host": "evil.example:80"}, 403),
    ],
)
async def test_it_answers_its_owner_only(codec: EncryptingCodec, headers: dict[str, str], status: int) -> None:
    for path in ("/decode", "/komodo-upgrade/prod/encode"):
        answer = await _asked(codec, lambda c, p=path: c.post(p, json=_body(PLAIN), headers=headers))  # type: ignore[misc]
        assert answer.status_code == status
        assert "access-control-allow-origin" not in answer.headers


async def test_pages_of_one_origin_may_ask(codec: EncryptingCodec) -> None:
    answer = await _asked(codec, lambda c: c.options("/decode", headers={"Origin": ORIGIN}))
    assert answer.headers["access-control-allow-origin"] == ORIGIN


@pytest.mark.parametrize("body", [b"", b"[]", b"[" * 100_000, b'{"payloads": 3}', b"\xff"])
async def test_odd_bodies_are_refused(codec: EncryptingCodec, body: bytes) -> None:
    answer = await _asked(codec, lambda c: c.post("/decode", content=body, headers=AUTH))
    assert answer.status_code == 400
