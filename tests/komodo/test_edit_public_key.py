from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from komodo.public_key import PATTERN, PLACEHOLDER, from_pem, pinnable, validate
from model.errors import KeyRejected

PRIVATE = X25519PrivateKey.generate()
KEY = base64.b64encode(PRIVATE.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).decode()
PEM = PRIVATE.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
PRIVATE_PEM = PRIVATE.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
PRIVATE_LINE = base64.b64encode(PRIVATE.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())).decode()
ED25519 = base64.b64encode(
    Ed25519PrivateKey.generate().public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
).decode()
RSA = base64.b64encode(
    generate_private_key(65537, 2048).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
).decode()


def test_a_key_as_komodo_shows_it() -> None:
    assert validate(KEY) == KEY
    assert validate(f'  "{KEY}"\n') == KEY
    assert PATTERN.fullmatch(KEY)
    assert from_pem(PEM) == KEY
    assert from_pem(PEM.replace("\n", "\r\n")) == KEY
    assert pinnable(PLACEHOLDER) == PLACEHOLDER


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty"),
        ("  ", "empty"),
        ('""', "empty"),
        (ED25519, "Ed25519"),
        (KEY[:-1], "cut off: 59 of 60"),
        (KEY[:30], "cut off: 30 of 60"),
        ("MCow", "cut off"),
        (PEM, "PEM"),
        (PRIVATE_PEM, "private key"),
        (PRIVATE_LINE, "private key"),
        ("file:/config/keys/core.pub", "reference to a file"),
        (f"{KEY},{KEY}", "more than one"),
        (f"{KEY}\n{KEY}", "more than one"),
        (RSA, "another kind"),
        ("hunter2", "not a public key"),
        (KEY + "A", "not a public key"),
        (PLACEHOLDER, "placeholder"),
        ("MCowBQYDK2VuAyEA" + "!" * 43 + "=", "not a public key"),
    ],
    ids=str.split("nothing blanks quotes ed25519 one-short half start pem private-pem private file two lines rsa word")
    + str.split("one-more placeholder marks"),
)
def test_each_mistake_has_its_message(text: str, said: str) -> None:
    with pytest.raises(KeyRejected) as rejected:
        validate(text)
    assert said in rejected.value.what
    assert rejected.value.hint
    assert PRIVATE_LINE not in str(rejected.value)


def test_pem_files_that_are_none() -> None:
    for text in (PRIVATE_PEM, "", "x", PEM[:40]):
        with pytest.raises(KeyRejected):
            from_pem(text)
    ed = Ed25519PrivateKey.generate().public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(KeyRejected, match="Ed25519"):
        from_pem(ed.decode())
