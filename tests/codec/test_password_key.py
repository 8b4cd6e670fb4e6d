"""Password keys and verifiers: Argon2id as published, the same text in any normal form, nothing shared (T18)."""

import hashlib
import hmac
import itertools

import pytest
from builders import BANK_ID, CHEAP_PASSWORD_KEY, PASSWORD, PEPPER, USER_ID
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from paygate.codec import limits
from paygate.codec.seal import DEFAULT_PASSWORD_KEY, password_key, password_salt, verifier_of
from paygate.codec.sealed import PasswordKeyParameters


def test_argon2id_is_that_of_rfc_9106() -> None:
    # RFC 9106 section 5.3. It uses a secret and associated data, which password keys do not.
    derivation = Argon2id(
        salt=b"\2" * 16, length=32, iterations=3, lanes=4, memory_cost=32, ad=b"\4" * 12, secret=b"\3" * 8
    )
    tag = derivation.derive(b"\1" * 32)
    assert tag.hex() == "0d640df58d78766c08c037a34a8b53c9d01ef0452d75b65eb52520e96b01e659"


@pytest.mark.pg("PG-PWD-1")
@pytest.mark.parametrize(
    ("memory_kib", "tag"),
    [
        (65_536, "09316115d5cf24ed5a15a31a3ba326e5cf32edc24702987c02b6566f61913cf7"),
        (256, "9dfeb910e80bad0311fee20f9c0e2b12c17987b4cac90c2ef54d5b3021c68bfe"),
    ],
)
def test_argon2id_is_that_of_the_reference_implementation(memory_kib: int, tag: str) -> None:
    # The test values of phc-winner-argon2 (src/test.c): no secret, no data, as password keys are made.
    derivation = Argon2id(salt=b"somesalt", length=32, iterations=2, lanes=1, memory_cost=memory_kib)
    assert derivation.derive(b"password").hex() == tag


@pytest.mark.pg("PG-CRY-1", "PG-PWD-1")
@pytest.mark.parametrize(
    "parameters", [CHEAP_PASSWORD_KEY, DEFAULT_PASSWORD_KEY, PasswordKeyParameters(64, 3, 2)], ids=str
)
def test_a_password_key_is_argon2id_under_its_own_salt(parameters: PasswordKeyParameters) -> None:
    salt = hashlib.sha256(b"paygate/v1/password-salt\0" + b"BANK1" + b"\0" + b"asha").digest()[:16]
    assert password_salt(BANK_ID, USER_ID) == salt
    derivation = Argon2id(
        salt=salt,
        length=32,
        iterations=parameters.iteration_count,
        lanes=parameters.lane_count,
        memory_cost=parameters.memory_kib,
    )
    key = password_key(parameters, BANK_ID, USER_ID, PASSWORD)
    assert key == derivation.derive(b"correct horse")
    assert len(key) == limits.PASSWORD_KEY_SIZE == 32


def test_the_password_key_of_a_known_password_never_changes() -> None:
    # A bank's verifiers depend on it: another value here locks every customer out.
    key = password_key(DEFAULT_PASSWORD_KEY, BANK_ID, USER_ID, PASSWORD)
    assert key.hex() == "d6ece2b56791e3e18471c4b105fa8e0f4234b7e8d484e2445537afddef29ef73"
    assert verifier_of(PEPPER, key).hex() == "ed1fbeebde0b97e284e5c036ffe46aa08a6bf2a47b5b7796b0f176c575ae602e"


def test_every_input_counts() -> None:
    inputs = {
        password_key(PasswordKeyParameters(*parameters), bank_id, user_id, password)
        for parameters in ((8, 1, 1), (9, 1, 1), (8, 2, 1), (16, 1, 2))
        for bank_id, user_id, password in itertools.product(("B", "B2"), ("a", "b"), ("p", "q"))
    }
    assert len(inputs) == 32


def test_bank_id_and_user_id_do_not_run_into_each_other() -> None:
    assert password_salt("B", "1asha") != password_salt("B1", "asha")


@pytest.mark.pg("PG-PWD-1")
@pytest.mark.parametrize(
    ("typed", "same"),
    [("pa\u0308ss", "p\u00e4ss"), ("\u1e9b\u0323", "\u1e9b\u0323"), ("\u212b", "\u00c5"), ("\u1100\u1161", "\uac00")],
)
def test_user_id_and_password_are_the_same_in_every_normal_form(typed: str, same: str) -> None:
    # A keyboard that composes and one that does not type the same password.
    assert password_key(CHEAP_PASSWORD_KEY, BANK_ID, typed, "p") == password_key(CHEAP_PASSWORD_KEY, BANK_ID, same, "p")
    assert password_key(CHEAP_PASSWORD_KEY, BANK_ID, "u", typed) == password_key(CHEAP_PASSWORD_KEY, BANK_ID, "u", same)
    # Normal form C and no more: compatibility forms stay apart.
    assert password_key(CHEAP_PASSWORD_KEY, BANK_ID, "u", "ﬁ") != password_key(CHEAP_PASSWORD_KEY, BANK_ID, "u", "fi")


def test_a_verifier_is_an_hmac_under_the_pepper() -> None:
    assert verifier_of(PEPPER, b"k" * 32) == hmac.digest(PEPPER, b"paygate/v1/verifier\0" + b"k" * 32, "sha256")
    assert len(verifier_of(PEPPER, b"k" * 32)) == limits.VERIFIER_SIZE
    assert verifier_of(PEPPER, b"k" * 32) != verifier_of(bytes(32), b"k" * 32)
    assert verifier_of(PEPPER, b"k" * 32) != verifier_of(PEPPER, b"j" * 32)
