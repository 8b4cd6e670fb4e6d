"""No secret is ever shown: not by repr, str or describe, and by no error or anything that hangs on to it (R4)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from builders import (
    BANK_ID,
    CHEAP_PASSWORD_KEY,
    LINK_KEY,
    build_terms,
    example,
    seal_foreign,
    sealing_key,
    with_changes,
)
from strategies import RECORDS, illegal_values

from paygate.codec import fields as wire_fields
from paygate.codec.buffer import FrameBuffer
from paygate.codec.codes import KemId, Kind
from paygate.codec.describe import describe
from paygate.codec.errors import ErrorCode, LocalProtocolError, ProtocolError, RemoteProtocolError
from paygate.codec.fields import (
    Opaque,
    Record,
    Sensitivity,
    Text,
    Uint,
    WireField,
    fields_of,
    public,
    record,
    shown_fields,
)
from paygate.codec.frame import decode_frame, decode_head, encode_frame
from paygate.codec.jsonform import BadJson, from_json, to_json
from paygate.codec.messages import MESSAGES, MakeVerifier, Message, SealCredentials, TokenQuery
from paygate.codec.record_codec import decode_record, encode_record
from paygate.codec.seal import NotOpened, open_envelope, password_key, password_salt, seal_credentials
from paygate.codec.sealed import CredentialsPlaintext
from paygate.effects import Send
from paygate.link_events import ReplyReceived, RequestReceived

CANARY = "canary7hunter2"
CANARY_TRACES = (CANARY, CANARY[2:12], CANARY.encode().hex(), CANARY.encode().hex().upper())


def chain_of(error: BaseException) -> Iterator[BaseException]:
    """The error, and all that it was raised because of or while handling, shown or suppressed."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            yield one
            waiting += [one.__cause__, one.__context__]


def assert_clean(text: str) -> None:
    for trace in CANARY_TRACES:
        assert trace not in text


def assert_error_is_clean(error: BaseException) -> None:
    for one in chain_of(error):
        assert_clean(repr(one))
        assert_clean(str(one))
        assert_clean(repr(one.args))
        assert_clean(repr(vars(one)) if hasattr(one, "__dict__") else "")
    if isinstance(error, RemoteProtocolError):
        assert_clean(error.text + error.path + error.expected)


def secret_fields(cls: type[Record]) -> list[WireField]:
    return [f for f in fields_of(cls) if f.sensitivity is not Sensitivity.PUBLIC]


KINDS_WITH_SECRETS = [kind for kind in Kind if secret_fields(type(example(kind)))]


def with_canary(message: Message, field: WireField) -> Message:
    if isinstance(field.type, Text):
        value: Any = CANARY
    elif isinstance(field.type, Opaque):
        value = CANARY.encode().ljust(field.type.size, b"#")
    else:
        value = CANARY.encode() * 20
    return with_changes(message, **{field.name: value})


def test_the_secrets_are_these() -> None:
    found = {
        f"{cls.__name__}.{f.name}" for cls in RECORDS for f in fields_of(cls) if f.sensitivity is Sensitivity.SECRET
    }
    assert found == {
        "TokenQuery.passcode",
        "StatusQuery.passcode",
        "CredentialsPlaintext.user_id_size",
        "CredentialsPlaintext.user_id",
        "CredentialsPlaintext.password_key",
        "CredentialsPlaintext.nonce",
        "CredentialsPlaintext.padding",
        "SealCredentials.user_id",
        "SealCredentials.password",
        "OpenedEnvelope.user_id",
        "OpenedEnvelope.verifier",
        "MakeVerifier.user_id",
        "MakeVerifier.password",
        "Verifier.verifier",
    }


@pytest.mark.parametrize("kind", KINDS_WITH_SECRETS, ids=lambda kind: kind.name)
def test_nothing_shows_a_secret_field(kind: Kind) -> None:
    for field in secret_fields(type(example(kind))):
        message = with_canary(example(kind), field)
        data = encode_frame(message, 7, LINK_KEY)  # legal: the canary does travel
        assert CANARY.encode() in data
        frame = decode_frame(decode_head(data[:20]), data)
        buffer = FrameBuffer()
        buffer.receive_data(data)
        shown = [message, frame, buffer, frame.message(), RequestReceived(7, message), ReplyReceived(7, message)]
        for value in [*shown, Send(1, data)]:
            assert_clean(repr(value))
            assert_clean(str(value))
            assert_clean(f"{value}")
        assert_clean(describe(message))
        assert f"{field.name}=" in describe(message)
        assert_clean(repr(shown_fields(message)))


def illegal_with_canary(field: WireField) -> list[Any]:
    if isinstance(field.type, Text):
        return [CANARY + "\n", CANARY + "\udc80", CANARY * 40, CANARY.encode(), [CANARY], CANARY + "e\u0301"]
    if isinstance(field.type, Uint):
        return [CANARY, [CANARY]]
    return [CANARY.encode() * 2_000, CANARY, [CANARY], bytearray(CANARY.encode())]


@pytest.mark.parametrize("kind", KINDS_WITH_SECRETS, ids=lambda kind: kind.name)
def test_no_error_of_encoding_shows_a_secret(kind: Kind) -> None:
    for field in secret_fields(type(example(kind))):
        for value in illegal_with_canary(field):
            with pytest.raises(LocalProtocolError) as caught:
                encode_frame(with_changes(example(kind), **{field.name: value}), 7)
            assert_error_is_clean(caught.value)


@pytest.mark.pg("PG-ERR-2")
@pytest.mark.parametrize("kind", KINDS_WITH_SECRETS, ids=lambda kind: kind.name)
def test_no_error_of_decoding_shows_a_secret(kind: Kind) -> None:
    cls = type(example(kind))
    for field in secret_fields(cls):
        encoded = encode_record(with_canary(example(kind), field))
        at = encoded.index(CANARY.encode())
        error_count = 0
        damaged = [encoded[: at + size] for size in range(len(CANARY) + 1)]  # cut within the secret
        damaged += [encoded + b"x"]
        for offset in range(len(CANARY) + 1):  # bytes that are no UTF-8 and no text, within and before it
            for byte in (b"\xff", b"\0", b"\x80", b"\n"):
                damaged.append(encoded[: at + offset - 1] + byte + encoded[at + offset :])
        for data in damaged:
            try:
                decode_record(cls, data)
            except RemoteProtocolError as error:
                error_count += 1
                assert_error_is_clean(error)
        assert error_count


TEXTS = [(kind, f) for kind, cls in MESSAGES.items() for f in fields_of(cls) if isinstance(f.type, Text)]


@pytest.mark.pg("PG-ERR-2")
@pytest.mark.parametrize(("kind", "field"), TEXTS, ids=lambda v: v.name)
def test_no_error_text_holds_a_received_value(kind: Kind, field: WireField) -> None:
    # Spec 5.6: not even of a field that is no secret.
    message = example(kind)
    assert isinstance(field.type, Text)
    received = ("QZ7" * 100)[: field.type.maximum - 1]
    bad = received.encode() + b"\n"
    pieces = {f.name: f.type.build(getattr(message, f.name)) for f in fields_of(type(message))}
    with pytest.raises(RemoteProtocolError) as caught:
        decode_record(type(message), b"".join((pieces | {field.name: bytes([len(bad)]) + bad}).values()))
    assert (caught.value.code, caught.value.path) == (ErrorCode.BAD_VALUE, field.name)
    assert "QZ" not in caught.value.text


def test_a_secret_inside_another_record_is_masked_too() -> None:
    @record
    class Outer(Record):
        plaintext: CredentialsPlaintext = public(wire_fields.Nested(CredentialsPlaintext), "nested")
        several: tuple[CredentialsPlaintext, ...] = public(
            wire_fields.Counted(wire_fields.Nested(CredentialsPlaintext), 0, 2), "counted"
        )

    plaintext = CredentialsPlaintext(
        format_version=1,
        user_id_size=len(CANARY),
        user_id=CANARY.encode().ljust(64, b"\0"),
        password_key=CANARY.encode().ljust(32, b"\0"),
        nonce=CANARY.encode().ljust(16, b"\0"),
        padding=bytes(142),
    )
    outer = Outer(plaintext, (plaintext,))
    assert decode_record(Outer, encode_record(outer)) == outer
    assert_clean(repr(outer))
    assert "<secret>" in repr(outer)


def test_an_unknown_sensitivity_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    # Masking fails closed: only what the table knows is shown.
    @dataclass(frozen=True)
    class NewField:
        name: str = "value"
        type: Any = None
        doc: str = ""
        sensitivity: Any = "a new one"

    monkeypatch.setattr(wire_fields, "fields_of", lambda cls: (NewField(),))

    @dataclass(frozen=True, repr=False)
    class New(Record):
        value: str = CANARY

    assert repr(New()) == "New(value=<secret>)"


def test_jsonform_errors_show_no_value() -> None:
    for kind in KINDS_WITH_SECRETS:
        message = example(kind)
        for field in secret_fields(type(message)):
            for wrong in [CANARY + "\n", {CANARY: CANARY}, [CANARY], CANARY * 40, CANARY + "\udc80"]:
                with pytest.raises(BadJson) as caught:
                    from_json(type(message), {**to_json(message), field.name: wrong})
                assert_error_is_clean(caught.value)
                assert caught.value.path == field.name
        with pytest.raises(BadJson) as caught:
            from_json(type(message), {**to_json(message), CANARY: 1})
        assert_error_is_clean(caught.value)


# -- seal ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("user_id", [CANARY + "\udc80", CANARY * 10, CANARY + "\n", CANARY + "\0"])
def test_a_user_id_that_can_not_be_sealed_is_not_shown(user_id: str) -> None:
    suite_key = sealing_key(KemId.X25519).public_suite_key()
    with pytest.raises(LocalProtocolError) as caught:
        seal_credentials(suite_key, build_terms(), user_id, b"k" * 32, b"n" * 16)
    assert_error_is_clean(caught.value)
    with pytest.raises(LocalProtocolError) as caught:
        password_salt(BANK_ID, user_id)
    assert_error_is_clean(caught.value)


@pytest.mark.parametrize("password", [CANARY + "\udc80", CANARY * 30, CANARY + "\0", ""])
def test_a_password_that_no_field_can_hold_is_refused_and_not_shown(password: str) -> None:
    with pytest.raises(LocalProtocolError) as caught:
        password_key(CHEAP_PASSWORD_KEY, BANK_ID, "asha", password)
    assert_error_is_clean(caught.value)


@pytest.mark.pg("PG-ENV-5")
@pytest.mark.parametrize(
    "user_id",
    [
        CANARY.encode() + b"\xff",
        CANARY.encode() + b"\n",
        CANARY.encode() + b"e\xcc\x81",  # not in normal form C
        CANARY.encode() + b"\xe2\x80\xae",  # right-to-left override
    ],
)
def test_credentials_that_no_message_can_hold_do_not_open(user_id: bytes) -> None:
    # Only a client of somebody's own making seals such a user ID. It must not come as far as the bank's text
    # records, nor break the decoder that would have to send it on.
    key = sealing_key(KemId.X25519)
    suite_key = key.public_suite_key()
    envelope = seal_foreign(suite_key, build_terms(), user_id)
    with pytest.raises(NotOpened) as caught:
        open_envelope(key, suite_key.key_id, build_terms(), envelope)
    assert_error_is_clean(caught.value)


def test_opened_credentials_and_keys_show_nothing() -> None:
    key = sealing_key(KemId.X25519)
    suite_key = key.public_suite_key()
    envelope = seal_credentials(suite_key, build_terms(), CANARY, CANARY.encode().ljust(32), b"n" * 16)
    credentials = open_envelope(key, suite_key.key_id, build_terms(), envelope)
    assert credentials.user_id == CANARY
    assert_clean(repr(credentials))
    assert key.private_bytes().hex() not in repr(key)
    assert str(key.private_bytes()) not in repr(key)


def test_describe_is_one_line() -> None:
    assert describe(TokenQuery("TX-1", CANARY)) == "TOKEN_QUERY transaction_id=TX-1 passcode=<secret>"
    for kind in Kind:
        assert describe(example(kind)).isprintable()


def test_the_canary_would_be_found() -> None:
    # The net of this file has to catch something, or it holds nothing.
    with pytest.raises(AssertionError):
        assert_clean(f"password is {CANARY}")
    try:
        try:
            (CANARY.encode() + b"\xff").decode()
        except UnicodeDecodeError:
            raise ProtocolError("clean by itself") from None
    except ProtocolError as error:
        with pytest.raises(AssertionError):
            assert_error_is_clean(error)


def test_messages_with_secrets_are_known() -> None:
    assert {SealCredentials, MakeVerifier, TokenQuery} <= {type(example(kind)) for kind in KINDS_WITH_SECRETS}
    assert all(illegal_values(f.type) for kind in KINDS_WITH_SECRETS for f in secret_fields(type(example(kind))))
