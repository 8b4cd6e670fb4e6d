"""The MAC of frames, sizes of transfers, and transfers glued together, against a bank (spec 4).

What holds for every answering end is in `answering_frame_cases`.
"""

from dataclasses import replace

from paygate.codec import limits
from paygate.codec.codes import KeysStatus, Reason, TransferOutcome
from paygate.codec.errors import ErrorCode
from paygate.codec.frame import body_size_range
from paygate.codec.messages import BankKeys, BankKeysQuery, TransferResult
from paygate.conform.answering_frame_cases import echo_draft, refused_headers
from paygate.conform.bank_side import BANK, BANK_END, open_link, open_till
from paygate.conform.cases import Failed, require
from paygate.conform.craft import flipped
from paygate.conform.trial import Trial


@BANK.case(
    "size.extremes",
    "Requests with the smallest and the largest fields are served.",
    *("4.2", "3.2", "PG-FRM-4", "PG-ENC-2", "PG-ENC-8"),
)
async def size_extremes(t: Trial) -> None:
    till = await open_till(t)
    for bank_id in ("X", "x" * limits.IDENTIFIER_SIZE_MAX, "9._-"):
        keys = await till.wire.ask(BankKeysQuery(bank_id), BankKeys)
        require(keys.status is KeysStatus.UNKNOWN_BANK, f"UNKNOWN_BANK for {bank_id}", keys)
    for size in (1, limits.ENVELOPE_SIZE_MAX):
        payment = replace(till.payment(transaction_id="T" * 32, merchant_id="m"), envelope=t.random_bytes(size))
        await till.decline(payment, Reason.TERMS)


@BANK.case(
    "header.no_mac",
    "A request without a MAC gets NOT_AUTHENTICATED, from its header alone.",
    *("4.4", "9", "PG-MAC-1", "PG-FRM-3"),
)
async def header_no_mac(t: Trial) -> None:
    good = echo_draft(t, BANK_END)
    sizes = ((kind, body_size_range(kind)[1]) for kind in BANK_END.request_kinds)
    drafts = (replace(good, kind=kind, body_size=size, flags=0) for kind, size in sizes)
    await refused_headers(t, BANK_END, drafts, ErrorCode.NOT_AUTHENTICATED)


@BANK.case(
    "frame.mac",
    "A MAC with any bit wrong, of another key, or over another header or body, gets BAD_MAC.",
    *("4.4", "9", "PG-MAC-1", "PG-MAC-2", "PG-FRM-5"),
)
async def frame_mac_wrong(t: Trial) -> None:
    good = echo_draft(t, BANK_END)
    mac = good.encode()[-limits.MAC_SIZE :]
    wrong = [replace(good, mac=flipped(mac, place)) for place in range(limits.MAC_SIZE)]
    wrong += [replace(good, mac=bytes(16)), replace(good, mac=replace(good, link_key=bytes(32)).encode()[-16:])]
    # The checksum is right, the MAC is that of another correlation ID, and of another body.
    wrong += [replace(good, mac=mac, correlation_id=2), replace(good, mac=mac, body=bytes(8))]
    for frame in wrong:
        wire = await open_link(t)
        wire.send_draft(frame)
        await wire.expect_error(ErrorCode.BAD_MAC)


@BANK.case(
    "stream.glued_transfers",
    "Transfers and resolves glued into one segment are each answered under their own correlation ID.",
    *("4.1", "7.2", "PG-FRM-2", "PG-LNK-8"),
)
async def stream_glued_transfers(t: Trial) -> None:
    till = await open_till(t)
    payments = [till.payment() for _ in range(8)]
    by_correlation = {till.wire.send(payment.transfer()): payment for payment in payments}
    for _ in payments:
        reply = await till.wire.receive()
        payment = by_correlation.pop(reply.correlation_id, None)
        if not isinstance(reply.message, TransferResult) or payment is None:
            raise Failed("a TransferResult for one of the requests that wait", reply)
        till.check(payment, reply.message)
        require(reply.message.outcome is TransferOutcome.POSTED, "POSTED", reply)
