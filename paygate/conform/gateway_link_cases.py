"""What a gateway's client link has of its own: no MAC, any party ID, its requests' sizes (spec 3 to 5).

What holds for every answering end is in `answering_*_cases`.
"""

from dataclasses import replace

from paygate.codec import limits
from paygate.codec.codes import KeysStatus, PaymentStatus, Reason, Role, TokenStatus, TransferOutcome
from paygate.codec.errors import ErrorCode
from paygate.codec.fields import IDENTIFIER, PASSCODE
from paygate.codec.frame import FLAG_AUTHENTICATED
from paygate.codec.messages import BankKeys, BankKeysQuery, Error, PaymentAck, TokenAck, TokenQuery, TransferRequest
from paygate.codec.record_codec import encode_record
from paygate.conform.answering_frame_cases import echo_draft, refused_headers
from paygate.conform.answering_link_cases import require_echo
from paygate.conform.cases import require
from paygate.conform.craft import draft, encode_any
from paygate.conform.gateway_side import (
    GATEWAY,
    GATEWAY_END,
    connect_to,
    hello_of,
    new_token,
    open_link,
    query,
    say_hello,
    unknown_credentials,
    until_status,
)
from paygate.conform.shopper import begin, expect_answer, open_shopper, require_answer
from paygate.conform.trial import Trial


@GATEWAY.case(
    "hello.party_id_is_free", "A client may call itself whatever is an identifier.", *("5.1", "PG-LNK-2", "PG-ENC-8")
)
async def party_id_is_free(t: Trial) -> None:
    for party_id in ("x", "X" * limits.IDENTIFIER_SIZE_MAX, t.world.gateway.gateway_id, "9._-"):
        wire = await connect_to(t)
        await say_hello(t, wire, hello_of(t, party_id=party_id))


@GATEWAY.case(
    "hello.order_of_checks",
    "Of several faults in a Hello the first is told: role, then version.",
    *("5.1", "PG-LNK-2", "PG-ERR-7"),
)
async def hello_order(t: Trial) -> None:
    wire = await connect_to(t)
    wire.send(hello_of(t, role=Role.BANK, versions=(2,)))
    await wire.expect_error(ErrorCode.BAD_VALUE)


@GATEWAY.case(
    "hello.error_before",
    "Before Hello an Error that closes ends the connection, and one that does not gets UNEXPECTED_MESSAGE.",
    *("5.3", "PG-LNK-12", "PG-ERR-3"),
)
async def error_before_hello(t: Trial) -> None:
    wire = await connect_to(t)
    wire.send(Error(ErrorCode.INTERNAL, closes=True, text=""), 0)
    await wire.expect_closed()
    wire = await connect_to(t)
    wire.send(Error(ErrorCode.SHUTTING_DOWN, closes=False, text=""), 1)
    await wire.expect_error(ErrorCode.UNEXPECTED_MESSAGE)


@GATEWAY.case(
    "header.unexpected_mac",
    "A frame that says that it has a MAC gets UNEXPECTED_MAC, from its header alone, Hello among them.",
    *("4.4", "9", "PG-MAC-3", "PG-FRM-3"),
)
async def unexpected_mac(t: Trial) -> None:
    wire = await connect_to(t)
    wire.send_bytes(replace(draft(hello_of(t), None), flags=FLAG_AUTHENTICATED).header())
    await wire.expect_error(ErrorCode.UNEXPECTED_MAC)
    good = echo_draft(t, GATEWAY_END)
    requests = [make(t) for make in GATEWAY_END.requests.values()]
    drafts = [good, *(draft(request, None) for request in requests)]
    await refused_headers(
        t, GATEWAY_END, (replace(d, flags=FLAG_AUTHENTICATED) for d in drafts), ErrorCode.UNEXPECTED_MAC
    )


@GATEWAY.case(
    "size.extremes",
    "Requests with the smallest and the largest fields are served.",
    *("3.2", "4.2", "PG-FRM-4", "PG-ENC-2", "PG-ENC-8", "PG-ENC-9"),
)
async def size_extremes(t: Trial) -> None:
    wire = await open_link(t)
    for bank_id in ("X", "x" * limits.IDENTIFIER_SIZE_MAX, "9._-"):
        keys = await wire.ask(BankKeysQuery(bank_id), BankKeys)
        require(keys.status is KeysStatus.UNKNOWN_BANK, f"UNKNOWN_BANK for {bank_id}", keys)
    unknown = t.random_bytes(8).hex()
    for transaction_id in ("Z", unknown.ljust(IDENTIFIER.maximum, "9")):
        for passcode in ("!", "~" * PASSCODE.maximum):
            ack = await wire.ask(TokenQuery(transaction_id, passcode), TokenAck)
            # Others may have asked for "Z" before, and locked it.
            is_right = ack.status in (TokenStatus.INVALID, TokenStatus.LOCKED)
            require(is_right, "a TokenAck INVALID of a token that nobody issued", ack)
    for size in (1, limits.ENVELOPE_SIZE_MAX):
        message = replace(unknown_credentials(t), envelope=t.random_bytes(size))
        require_answer(await wire.ask(message, PaymentAck), PaymentStatus.REFUSED, Reason.SESSION)


@GATEWAY.case(
    "requests.duplicate_correlation",
    "A request under the correlation ID of a payment that waits gets DUPLICATE_CORRELATION; the payment goes on.",
    *("5.2", "9", "PG-LNK-7", "PG-LNK-12", "PG-SES-5"),
)
async def duplicate_correlation(t: Trial) -> None:
    watched = await begin(t)
    asked, _ = await watched.desk.next(TransferRequest)
    wire = watched.shopper.wire
    wire.send(TokenQuery("ANY", "thing"), watched.correlation_id)
    await wire.expect_error(ErrorCode.DUPLICATE_CORRELATION)
    watched.desk.answer(asked, TransferOutcome.POSTED)
    other = await open_shopper(t)
    await until_status(t, other.wire, watched.payment.token, TokenStatus.PAID)


@GATEWAY.case(
    "error.takes_nothing_back",
    "What came whole before a faulty frame is served: a passcode in it counts.",
    *("5.2", "5.3", "PG-LNK-11", "PG-TOK-2"),
)
async def takes_nothing_back(t: Trial) -> None:
    token = new_token(t)
    for _ in range(5):
        bad = await open_link(t, name="a link that fails")
        bad.send_bytes(draft(TokenQuery(token.transaction_id, "wrong"), None, 8).encode() + bytes(20))
        while await bad.next_or_closed():
            await bad.receive()
    ack = await query(await open_link(t), token)
    require(ack.status is TokenStatus.LOCKED, "a token LOCKED by five wrong passcodes", ack)


@GATEWAY.case(
    "error.text",
    "The text of an Error does not hold what was received.",
    *("5.6", "PG-ERR-2"),
)
async def error_text(t: Trial) -> None:
    secret = t.random_bytes(6).hex()
    fine = TokenQuery(f"T{secret}", secret)
    body = encode_any(IDENTIFIER, f"T{secret}") + encode_any(PASSCODE, f"{secret} |")
    assert encode_record(fine)[: len(secret)] == body[: len(secret)]
    for frame in (
        replace(draft(fine, None), body=body),
        replace(draft(fine, None), body=encode_any(IDENTIFIER, f"{secret} ") + encode_any(PASSCODE, secret)),
        replace(draft(fine, None), body=encode_record(fine) + secret.encode()),
    ):
        wire = await open_link(t)
        wire.send_draft(frame)
        codes = (ErrorCode.BAD_VALUE, ErrorCode.TRAILING_BYTES)
        error = await wire.expect_error(codes)
        require(secret not in error.text, "a text without what was received", error)


@GATEWAY.case(
    "error.disturbs_no_payment",
    "A link that fails disturbs no payment of another.",
    *("5.3", "PG-LNK-15"),
)
async def disturbs_no_payment(t: Trial) -> None:
    watched = await begin(t)
    asked, _ = await watched.desk.next(TransferRequest)
    for data in (b"GET / HTTP/1.1\r\nHost: paygate\r\n\r\n", bytes(64)):
        bad = await open_link(t, name="a link that fails")
        bad.send_bytes(data)
        await bad.expect_error(ErrorCode.BAD_MAGIC)
    await require_echo(t, watched.shopper.wire)
    watched.desk.answer(asked, TransferOutcome.POSTED)
    await expect_answer(watched, PaymentStatus.PAID)


@GATEWAY.case(
    "stream.glued_payments",
    "Queries glued into one segment, and then payments, are each answered under their own correlation ID.",
    *("4.1", "6.3", "PG-FRM-2", "PG-LNK-8", "PG-LNK-6"),
)
async def glued_payments(t: Trial) -> None:
    shopper = await open_shopper(t)
    wire = shopper.wire
    tokens = [new_token(t) for _ in range(8)]
    asked = {wire.send(TokenQuery(token.transaction_id, token.passcode)): token for token in tokens}
    payments = []
    for _ in tokens:
        reply = await wire.receive()
        token = asked.pop(reply.correlation_id, None)
        ack = reply.message
        is_right = isinstance(ack, TokenAck) and ack.status is TokenStatus.VALID and token is not None
        require(is_right, "a TokenAck VALID for each query, once", reply)
        assert isinstance(ack, TokenAck)
        assert token is not None
        payments.append(shopper.payment(token, ack))
    sent = {wire.send(payment.credentials()): payment for payment in payments}
    for _ in payments:
        reply = await wire.receive()
        payment = sent.pop(reply.correlation_id, None)
        require(isinstance(reply.message, PaymentAck) and payment is not None, "a PaymentAck for each, once", reply)
        assert isinstance(reply.message, PaymentAck)
        assert payment is not None
        require_answer(shopper.check(payment, reply.message), PaymentStatus.PAID)


@GATEWAY.case(
    "stream.split_payment", "Credentials that come in pieces of any size are served.", *("4.1", "6.3", "PG-FRM-2")
)
async def split_payment(t: Trial) -> None:
    shopper = await open_shopper(t)
    payment = await shopper.new_payment()
    data = draft(payment.credentials(), None, 4_242).encode()
    for place in range(0, len(data), 7):
        shopper.wire.send_bytes(data[place : place + 7])
        await t.sleep(0)
    answer = await shopper.wire.expect(PaymentAck, 4_242)
    require_answer(shopper.check(payment, answer), PaymentStatus.PAID)
