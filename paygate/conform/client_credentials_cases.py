"""What a client sends: the fields of EncryptedCredentials, and what is in the envelope (spec 6.3, 8.1 to 8.3)."""

import unicodedata
from dataclasses import replace
from typing import Final

from paygate.codec import limits
from paygate.codec.messages import EncryptedCredentials
from paygate.codec.seal import DEFAULT_PASSWORD_KEY, Credentials, NotOpened, password_key
from paygate.codec.sealed import PasswordKeyParameters
from paygate.conform.cases import Failed, require
from paygate.conform.client_options import Said
from paygate.conform.client_side import CLOCK_SKEW_MS_MAX, Desk, Visit, case

DIFFERING_BIT_COUNT_MIN: Final = 16
"""In how many bits two random payment IDs differ at least."""
_DECOMPOSED: Final = "e\u0301"
"""An e with an accent, as some keyboards and file systems compose it; normal form C has one character."""


@case(
    "credentials.fields",
    "EncryptedCredentials carries the TokenAck's session ID, a payment ID, the client's time and a listed key's ID.",
    *("6.3", "8.1", "PG-TRM-2"),
)
async def fields(desk: Desk) -> None:
    visit = desk.visit()
    await visit.run(Said.PAID)
    sent = visit.payment
    require(sent.session_id == visit.token.session_id, f"session {visit.token.session_id.hex()}", sent)
    skew_ms = abs(sent.authorised_at_ms - desk.t.wall_ms())
    require(skew_ms < CLOCK_SKEW_MS_MAX, "authorised_at_ms now, in milliseconds since 1970", sent)
    listed = {key.key_id for key in visit.key_list.suite_keys}
    require(sent.key_id in listed, "the ID of a listed key", sent)


@case(
    "credentials.fresh",
    "Each payment has a payment ID, an encapsulated key and a nonce of its own.",
    *("8.1", "8.2", "PG-TRM-2", "PG-TRM-3", "PG-ENV-6"),
)
async def fresh(desk: Desk) -> None:
    visits = [desk.visit(), desk.visit()]
    for visit in visits:
        await visit.run(Said.PAID)
    one, other = (visit.payment for visit in visits)
    require(one.payment_id != other.payment_id, "another payment ID", other)
    require(one.envelope[:32] != other.envelope[:32], "another encapsulated key", other)
    # Of 74 random bits some 37 differ, and fewer than 16 in one of two million runs; of a counter or a time few do.
    differing = int.from_bytes(one.payment_id) ^ int.from_bytes(other.payment_id)
    text = f"{one.payment_id.hex()} and {other.payment_id.hex()}"
    require(differing.bit_count() >= DIFFERING_BIT_COUNT_MIN, "payment IDs with 74 random bits", text)


@case(
    "credentials.terms",
    "The envelope opens under the terms that TokenAck, TokenQuery, payment ID and time make, and no others.",
    *("8.1", "8.2", "PG-ENV-1", "PG-ENV-6", "PG-TRM-1", "PG-TRM-2"),
)
async def terms(desk: Desk) -> None:
    # Each field differs from every other, and has its largest size or an odd value.
    visit = desk.visit(
        gateway_id="g" * limits.IDENTIFIER_SIZE_MAX,
        merchant_id="m" * limits.IDENTIFIER_SIZE_MAX,
        amount_minor=limits.AMOUNT_MINOR_MAX,
        currency="JPY",
    )
    await _opened(visit)


@case(
    "credentials.merchant_name",
    "The merchant's name is for people: an empty one, or one in another script, changes nothing in the terms.",
    *("8.1", "3.4", "PG-TRM-2", "PG-ENC-10"),
)
async def merchant_name(desk: Desk) -> None:
    for name in ("", "ग्राहक किराना स्टोर"):
        await _opened(desk.visit(merchant_name=name))


@case(
    "credentials.user_id",
    "The plaintext has 256 bytes: version 1, the user ID filled up with zeros, the password key, a nonce, and zeros.",
    *("8.2", "PG-ENV-4"),
)
async def user_id(desk: Desk) -> None:
    visit = desk.visit()
    opened = await _opened(visit)
    require(opened.user_id == visit.user_id, f"user ID {visit.user_id!r}", repr(opened.user_id))


@case(
    "credentials.password_key",
    "The password key is Argon2id of the password by the key list's parameters: here 19 MiB, 2 passes, 1 lane.",
    *("8.3", "PG-PWD-2"),
)
async def real_password_key(desk: Desk) -> None:
    await _password_key(desk.visit(), DEFAULT_PASSWORD_KEY)


@case(
    "credentials.parameters",
    "The key list's parameters are taken as they are: here 1 MiB, 3 passes, 4 lanes.",
    *("8.3", "8.4", "PG-PWD-2"),
)
async def odd_parameters(desk: Desk) -> None:
    await _password_key(desk.visit(), PasswordKeyParameters(memory_kib=1_024, iteration_count=3, lane_count=4))


@case(
    "credentials.normal_form",
    "User ID and password are brought into Unicode normal form C before they are used.",
    *("8.3", "3.4", "PG-PWD-1", "PG-ENC-10"),
)
async def normal_form(desk: Desk) -> None:
    visit = desk.visit()
    visit.user_id, visit.password = f"ren{_DECOMPOSED}", f"caf{_DECOMPOSED} {desk.t.random_bytes(8).hex()}"
    opened = await _opened(visit)
    normal = unicodedata.normalize("NFC", visit.user_id)
    require(opened.user_id == normal, f"user ID {normal!r} in normal form C", ascii(opened.user_id))
    _require_password_key(visit, opened)


@case(
    "credentials.long_password",
    "A password of 255 bytes and a user ID of 64 bytes are taken whole.",
    *("3.7", "8.2", "8.3"),
)
async def long_password(desk: Desk) -> None:
    visit = desk.visit()
    visit.user_id = "u" * limits.USER_ID_SIZE_MAX
    visit.password = "p" * (limits.PASSWORD_SIZE_MAX - 16) + desk.t.random_bytes(8).hex()
    opened = await _opened(visit)
    require(opened.user_id == visit.user_id, "a user ID of 64 bytes", repr(opened.user_id))
    _require_password_key(visit, opened)


@case(
    "credentials.secrecy",
    "Neither user ID nor password, nor the password key, stands in any byte that a client sends.",
    *("8.3", "10", "PG-PWD-2"),
)
async def secrecy(desk: Desk) -> None:
    visit = desk.visit()
    opened = await _opened(visit)
    require(opened.password_key not in visit.received(), "the password key sealed only", "it is sent in clear")
    visit.require_secrecy()


async def _password_key(visit: Visit, parameters: PasswordKeyParameters) -> None:
    visit.key_list = replace(visit.key_list, password_key=parameters)
    _require_password_key(visit, await _opened(visit))


def _require_password_key(visit: Visit, opened: Credentials) -> None:
    expected = password_key(visit.key_list.password_key, visit.bank.bank_id, visit.user_id, visit.password)
    require(opened.password_key == expected, f"password key {expected.hex()}", opened.password_key.hex())


async def _opened(visit: Visit) -> Credentials:
    """What the bank finds in the envelope of a run."""
    visit.begin()
    wire = await visit.link()
    asked = await visit.until(wire, EncryptedCredentials)
    try:
        opened = visit.bank.open(visit.payment.key_id, visit.terms, visit.payment.envelope)
    except NotOpened:
        raise Failed(f"an envelope that opens under {visit.terms}, with a plaintext of 8.2", asked) from None
    wire.send_bytes(visit.answer_to(asked))
    await visit.end(Said.PAID)
    return opened
