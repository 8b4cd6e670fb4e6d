"""What becomes of transfers when their link fails, against a bank (spec 5.2, 5.3).

What holds for every answering end is in `answering_link_cases`.
"""

from paygate.codec.errors import ErrorCode
from paygate.codec.messages import Error, Message, TransferAnswer, TransferResult
from paygate.conform.bank_side import BANK, open_link, open_till, require_posted, require_same
from paygate.conform.cases import Skipped, require
from paygate.conform.craft import draft
from paygate.conform.trial import Trial


@BANK.case(
    "requests.duplicate_correlation",
    "A request under a correlation ID that still waits for its reply gets DUPLICATE_CORRELATION.",
    *("5.2", "9", "PG-LNK-7", "PG-LNK-12"),
)
async def duplicate_correlation(t: Trial) -> None:
    till = await open_till(t)
    payments = [till.payment() for _ in range(8)]
    wire = till.wire
    # In one segment, so that the first can hardly be answered, which takes a durable commit, before the next is read.
    for payment in payments:
        wire.send(payment.transfer(), 99)
    replies: list[Message] = []
    while len(replies) < len(payments):
        reply = await wire.receive()
        if isinstance(reply.message, Error):
            require(reply.message.code is ErrorCode.DUPLICATE_CORRELATION, "DUPLICATE_CORRELATION", reply)
            require(reply.correlation_id == 0, "correlation 0 in an Error that closes", reply)
            await wire.expect_closed()
            return
        replies.append(reply.message)
    raise Skipped("the bank answered each request before it read the next, so none waited")


@BANK.case(
    "error.takes_nothing_back",
    "A transfer that came whole before a faulty frame is decided, though its link is gone.",
    *("5.2", "PG-LNK-11"),
)
async def takes_nothing_back(t: Trial) -> None:
    till = await open_till(t)
    payment = till.payment()
    bad = await open_link(t, name="the link that fails")
    bad.send_bytes(draft(payment.transfer(), bad.link_key, 8).encode() + bytes(20))
    reply = await bad.receive()
    if isinstance(reply.message, TransferResult):
        till.check(payment, reply.message)
        reply = await bad.receive()
    is_error = isinstance(reply.message, Error) and reply.message.code is ErrorCode.BAD_MAGIC
    require(is_error, "an Error BAD_MAGIC", reply)
    require_posted(await till.resolve(payment))


@BANK.case(
    "end.transfer_goes_on",
    "A transfer whose link ended right behind it is decided, and its outcome can be had on another link.",
    *("5.2", "5.3", "7.4", "PG-LNK-11", "PG-RES-9"),
)
async def transfer_goes_on(t: Trial) -> None:
    till = await open_till(t)
    payment = till.payment()
    ended = await open_link(t, name="the link that ends")
    ended.send(payment.transfer())
    await t.sleep(0)
    ended.end_output()
    answers: list[TransferAnswer] = []
    while await ended.next_or_closed():
        answers.append(await ended.expect(TransferResult))
    answers.append(await till.resolve(payment))
    require_posted(answers[-1])
    require_same(answers)
