"""The bank's key list to a client: what it must not believe, and which key it takes (spec 6.1, 8.2, 8.4)."""

from collections.abc import Callable
from dataclasses import replace

from paygate.codec.codes import AeadId, KemId, KeysStatus
from paygate.codec.messages import BankKeys, BankKeysQuery, PaymentAnswer
from paygate.codec.record_codec import encode_record
from paygate.codec.seal import LABEL_KEY_LIST, LABEL_RECEIPT_ROOT, SUITES, receipt_leaf
from paygate.codec.sealed import Receipt, SignedKeyList, SuiteKey
from paygate.conform.bank_keys import PlayedBankKeys
from paygate.conform.cases import Skipped, require
from paygate.conform.client_options import Said
from paygate.conform.client_plan import reply_to
from paygate.conform.client_side import DOUBT, OPEN_SESSION_MS, UNSENT, Desk, Visit, case

_MINUTE_MS = 60_000

# -- lists that are not believed -------------------------------------------------------------------------


def _refused(name: str, expects: str, *where: str) -> Callable[[Callable[[Visit], None]], None]:
    """Declare a case in which the key list is spoilt, and nothing may be sent."""

    def declare(spoil: Callable[[Visit], None]) -> None:
        @case(f"keys.{name}", expects, *("8.4", *where, "PG-PAY-1", "PG-CLI-1"))
        async def story(desk: Desk) -> None:
            visit = desk.visit()
            visit.may_pay = False
            spoil(visit)
            await visit.run(*UNSENT)

    return declare


@_refused("wrong_root", "A key list that another root key signed is refused; nothing is sent.", "PG-KEY-4")
def _wrong_root(visit: Visit) -> None:
    visit.signed_keys = _other_bank(visit).sign(visit.key_list)


@_refused("altered", "A key list that was changed after it was signed is refused; nothing is sent.", "PG-KEY-4")
def _altered(visit: Visit) -> None:
    signed = bytearray(visit.bank.sign(visit.key_list))
    honest = visit.key_list.suite_keys[-1].public_key
    other = _other_bank(visit).suite_key(visit.key_list.suite_keys[-1].kem_id).public_key
    place = signed.index(honest)
    signed[place : place + len(honest)] = other
    visit.signed_keys = bytes(signed)


@_refused("other_bank", "A key list of another bank is refused, though the root key signed it.", "PG-KEY-4")
def _list_of_other_bank(visit: Visit) -> None:
    visit.key_list = replace(visit.key_list, bank_id="OTHERBANK")


@_refused("expired", "A key list that is not valid any more is refused.", "PG-KEY-5")
def _expired(visit: Visit) -> None:
    now_ms = visit.t.wall_ms()
    visit.key_list = replace(visit.key_list, valid_from_ms=1, valid_until_ms=now_ms - _MINUTE_MS)


@_refused("not_yet_valid", "A key list that is not valid yet is refused.", "PG-KEY-5")
def _not_yet_valid(visit: Visit) -> None:
    now_ms = visit.t.wall_ms()
    visit.key_list = replace(visit.key_list, valid_from_ms=now_ms + 60 * _MINUTE_MS)


@_refused("trailing", "A SignedKeyList with a byte behind it is refused.", "PG-KEY-3")
def _trailing(visit: Visit) -> None:
    visit.signed_keys = visit.bank.sign(visit.key_list) + b"\0"


@_refused("trailing_inside", "A KeyList with a byte behind it, rightly signed, is refused.", "PG-KEY-3")
def _trailing_inside(visit: Visit) -> None:
    visit.signed_keys = _signed(visit, encode_record(visit.key_list) + b"\0")


@_refused("unknown_suite", "A key list that names a KEM which is not in the registry is not used.", "3.8", "PG-ENC-3")
def _unknown_suite(visit: Visit) -> None:
    encoded = encode_record(visit.key_list)
    hybrid = int(KemId.MLKEM768_X25519).to_bytes(2)
    key_id = next(key.key_id for key in visit.key_list.suite_keys if key.kem_id is KemId.MLKEM768_X25519)
    assert encoded.count(key_id + hybrid) == 1
    visit.signed_keys = _signed(visit, encoded.replace(key_id + hybrid, key_id + (0x0021).to_bytes(2)))


@_refused("unavailable", "BankKeys with UNAVAILABLE ends the session; nothing is sent.", "6.1")
def _unavailable(visit: Visit) -> None:
    visit.on[BankKeysQuery] = lambda asked: reply_to(asked, BankKeys(KeysStatus.UNAVAILABLE, b""))


@_refused("unknown_bank", "BankKeys with UNKNOWN_BANK ends the session; nothing is sent.", "6.1", "PG-KEY-2")
def _unknown_bank(visit: Visit) -> None:
    visit.on[BankKeysQuery] = lambda asked: reply_to(asked, BankKeys(KeysStatus.UNKNOWN_BANK, b""))


@_refused("token_of_other_bank", "A TokenAck that names another bank than the pinned one is not paid.", "6.3")
def _token_of_other_bank(visit: Visit) -> None:
    visit.token = replace(visit.token, bank_id="OTHERBANK")


@case(
    "keys.lower_serial",
    "A key list with a lower serial than one that was accepted before is refused, in a later run too.",
    *("8.4", "PG-KEY-5"),
)
async def lower_serial(desk: Desk) -> None:
    first = desk.visit()
    first.key_list = replace(first.key_list, serial=1_000)
    await first.run(Said.PAID)
    second = desk.visit()
    second.key_list = replace(second.key_list, serial=999)
    second.may_pay = False
    await second.run(*UNSENT)


@case(
    "keys.same_serial",
    "A key list with the serial that was accepted before, or a higher one, is taken.",
    *("8.4", "PG-KEY-5"),
)
async def same_serial(desk: Desk) -> None:
    for serial in (1_000, 1_000, 1_001):
        visit = desk.visit()
        visit.key_list = replace(visit.key_list, serial=serial)
        await visit.run(Said.PAID)


@case(
    "keys.receipt_id_not_hash",
    "A receipt under a listed key whose ID is not the hash of its public key is not believed, though all is signed.",
    *("8.4", "8.5", "PG-RCP-1", "PG-PAY-10"),
)
async def receipt_id_not_hash(desk: Desk) -> None:
    visit = desk.visit(session_left_ms=OPEN_SESSION_MS)
    (listed,) = visit.key_list.receipt_keys
    odd = replace(listed, receipt_key_id=visit.t.random_bytes(len(listed.receipt_key_id)))
    visit.key_list = replace(visit.key_list, receipt_keys=(odd,))

    def verdict(cls: type[PaymentAnswer]) -> PaymentAnswer:
        statement = visit.statement(receipt_key_id=odd.receipt_key_id)
        signed = LABEL_RECEIPT_ROOT + odd.receipt_key_id + (1).to_bytes(4) + receipt_leaf(statement)
        receipt = Receipt(statement, leaf_index=0, leaf_count=1, path=(), signature=desk.bank.receipt_key.sign(signed))
        return visit.proven(cls, statement, encode_record(receipt))

    visit.decide(verdict)
    await visit.run(*DOUBT)


def _other_bank(visit: Visit) -> PlayedBankKeys:
    return PlayedBankKeys(visit.bank.bank_id, visit.bank.bank_code, visit.t.random_bytes(32))


def _signed(visit: Visit, key_list: bytes) -> bytes:
    return encode_record(SignedKeyList(key_list, visit.bank.root_key.sign(LABEL_KEY_LIST + key_list)))


# -- which key is taken ----------------------------------------------------------------------------------


@case(
    "suites.best",
    "A client that implements the hybrid suite takes it from the list, though X25519 stands before it.",
    *("8.2", "PG-ENV-2", "PG-ENV-3"),
)
async def best_suite(desk: Desk) -> None:
    hybrid = desk.bank.suite_key(KemId.MLKEM768_X25519)
    alone = desk.visit()
    alone.key_list = replace(alone.key_list, suite_keys=(hybrid,))
    await alone.run(Said.PAID, *UNSENT)
    if alone.sent is None:
        raise Skipped("this client does not implement the hybrid suite; it need not")
    visit = desk.visit()
    visit.key_list = replace(visit.key_list, suite_keys=(desk.bank.suite_key(KemId.X25519), hybrid))
    await _sealed_for(visit, hybrid)


@case(
    "suites.x25519",
    "A client pays where only X25519 is listed.",
    *("8.2", "PG-ENV-2"),
)
async def x25519(desk: Desk) -> None:
    visit = desk.visit()
    only = desk.bank.suite_key(KemId.X25519)
    visit.key_list = replace(visit.key_list, suite_keys=(only,))
    await _sealed_for(visit, only)


@case(
    "suites.first_key",
    "Of several keys of the best suite a client takes the first.",
    *("8.2", "PG-ENV-3", "PG-KEY-7"),
)
async def first_key(desk: Desk) -> None:
    visit = desk.visit()
    keys = tuple(desk.bank.suite_key(KemId.X25519, name) for name in ("first", "second"))
    # Whatever a client may sort by, the first one is not the last in both cases.
    for listed in (keys, keys[::-1]):
        visit = desk.visit()
        visit.key_list = replace(visit.key_list, suite_keys=listed)
        await _sealed_for(visit, listed[0])


@case(
    "suites.unknown_combination",
    "An entry whose KEM, KDF and AEAD are not together one of the suites is passed over.",
    *("8.2", "PG-ENV-3"),
)
async def unknown_combination(desk: Desk) -> None:
    visit = desk.visit()
    good = desk.bank.suite_key(KemId.X25519)
    odd = replace(desk.bank.suite_key(KemId.X25519, "second"), aead_id=AeadId.AES_256_GCM)
    visit.key_list = replace(visit.key_list, suite_keys=(odd, good))
    await _sealed_for(visit, good)


@case(
    "suites.none",
    "A list without a suite that a client knows ends the session; nothing is sent.",
    *("8.2", "PG-ENV-3", "PG-CLI-1"),
)
async def no_suite(desk: Desk) -> None:
    visit = desk.visit()
    visit.may_pay = False
    odd = replace(desk.bank.suite_key(KemId.X25519), aead_id=AeadId.AES_256_GCM)
    visit.key_list = replace(visit.key_list, suite_keys=(odd,))
    await visit.run(*UNSENT)


async def _sealed_for(visit: Visit, suite_key: SuiteKey) -> None:
    await visit.run(Said.PAID)
    got = visit.payment
    require(got.key_id == suite_key.key_id, f"key ID {suite_key.key_id.hex()}, {suite_key.kem_id.name}", got)
    size = next(suite.enc_size for suite in SUITES if suite.kem_id is suite_key.kem_id) + 272
    require(len(got.envelope) == size, f"an envelope of {size} bytes", f"{len(got.envelope)} bytes")
