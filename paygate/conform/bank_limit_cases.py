"""What needs the tester's help against a bank: more connections than it takes, and its shutting down (spec 7.2, 9)."""

import argparse
import shlex
from typing import Final

from paygate.codec.codes import TransferOutcome
from paygate.codec.errors import ErrorCode
from paygate.codec.messages import Echo, EchoReply, Error, HelloAck, TransferResult
from paygate.conform.bank_side import BANK, connect_as, hello_of, open_link, open_till
from paygate.conform.cases import Failed, Skipped, Unreachable, require
from paygate.conform.trial import Trial

DRAIN_MS_MAX: Final = 40_000
"""How long a bank that is shutting down may take: the payments in flight end with their sessions of 30 s."""

_FLOOD_COUNT_MAX: Final = 65_535
"""From one address no more connections can be open at once to one port."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of these cases."""
    parser.add_argument(
        "--flood",
        type=_count,
        metavar="N",
        help="open N connections, more than the bank takes, in that limit's case",
    )
    parser.add_argument(
        "--restart-command",
        metavar="CMD",
        help="a command that kills the bank and starts it again at the same place, run by the cases of that",
    )
    parser.add_argument(
        "--drain-command", metavar="CMD", help="a command that makes the bank shut down, run by the very last case"
    )


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) <= _FLOOD_COUNT_MAX):
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 to {_FLOOD_COUNT_MAX}")
    return int(text)


@BANK.case(
    "limit.connections",
    "Of more connections than the bank takes the last are turned away, and the others go on.",
    *("9", "PG-LNK-15", "PG-ERR-9"),
    exclusive=True,
)
async def too_many_connections(t: Trial) -> None:
    count = t.settings.options.get("flood")
    if count is None:
        raise Skipped("it needs --flood N, with N above the number of connections that the bank takes")
    first = await open_link(t, name="the first link")
    turned_away_count = 0
    for _ in range(count):
        wire = await connect_as(t)
        wire.send(hello_of(t))
        if not await wire.next_or_closed():
            turned_away_count += 1
            continue
        reply = await wire.receive()
        if isinstance(reply.message, Error):
            require(reply.message.code is ErrorCode.TOO_MANY_CONNECTIONS, "TOO_MANY_CONNECTIONS", reply)
            await wire.expect_closed()
            turned_away_count += 1
        else:
            require(isinstance(reply.message, HelloAck), "a HelloAck, or to be turned away", reply)
    require(turned_away_count > 0, f"some of {count} connections turned away", "all of them were served")
    await first.ask(Echo(bytes(8)), EchoReply)


@BANK.case(
    "limit.shutting_down",
    "A bank that shuts down ends what is under way, takes nothing new, and closes its links.",
    *("9", "7.2", "PG-TRF-10", "PG-LNK-14"),
    exclusive=True,
)
async def shutting_down(t: Trial) -> None:
    command = t.settings.options.get("drain_command")
    if command is None:
        raise Skipped("it needs --drain-command CMD, and ends the bank")
    till = await open_till(t)
    payment = till.payment()
    correlation_id = till.wire.send(payment.transfer())
    await t.sleep(0)
    code = await t.run_command(shlex.split(command))
    require(code == 0, f"exit code 0 of the command {command}", code)
    answer = await till.wire.expect(TransferResult, correlation_id)
    till.check(payment, answer)
    is_told = answer.outcome in (TransferOutcome.POSTED, TransferOutcome.UNAVAILABLE)
    require(is_told, "POSTED, or UNAVAILABLE of a bank that shuts down", answer)
    await till.wire.expect_closed(DRAIN_MS_MAX)
    try:
        await open_link(t, name="after the end")
    except (Unreachable, Failed):
        return
    raise Failed("no link to a bank that has shut down", "it said hello")
