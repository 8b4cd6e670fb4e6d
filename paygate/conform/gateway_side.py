"""The other sides of a gateway: the clients that the kit plays, and, with --bank-listen, the bank behind it."""

import argparse
import sys
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Final

from paygate.arguments import address
from paygate.codec import limits
from paygate.codec.codes import Role, TokenStatus
from paygate.codec.messages import (
    EncryptedCredentials,
    Hello,
    HelloAck,
    StatusQuery,
    TokenAck,
    TokenQuery,
)
from paygate.conform.answering import AnsweringEnd
from paygate.conform.cases import Catalogue, Failed, Skipped, Unreachable, WorldUsedUp, require
from paygate.conform.played_bank import PlayedBank
from paygate.conform.trial import Trial
from paygate.conform.wire import Wire
from paygate.conform.world import WorldToken
from paygate.net.addresses import Address, format_host_port

LINK_WAIT_MS: Final = 60_000
"""How long the kit waits at the start for the gateway: somebody may start it by hand."""
PASSCODE_TRY_COUNT: Final = 5
"""Wrong passcodes after which a token is locked (PG-TOK-2)."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """The gateway role's own options."""
    parser.add_argument(
        "--bank-listen",
        type=address,
        metavar="HOST:PORT",
        help="play the bank behind the gateway here (port 0: any free one); the gateway is started afterwards, or "
        "tries until it finds the bank. Without it the cases that need a bank led by hand are skipped",
    )
    parser.add_argument(
        "--restart-command",
        metavar="CMD",
        help="a command that kills the gateway and starts it again at the same place, run by the case of that",
    )
    parser.add_argument(
        "--drain-command", metavar="CMD", help="a command that makes the gateway shut down, run by the very last case"
    )


@dataclass(slots=True)
class GatewayShared:
    """What the cases of a run share."""

    tokens: deque[WorldToken]
    """Those that were VALID at the start; each is for one case."""
    bank: PlayedBank | None = None
    password_keys: dict[tuple[str, str], bytes] = field(default_factory=dict)
    expired_tokens: deque[WorldToken] = field(default_factory=deque)
    unpaid_count: int = field(init=False)
    """How many tokens there were at the start."""

    def __post_init__(self) -> None:
        self.unpaid_count = len(self.tokens)


async def prepare(t: Trial) -> GatewayShared:
    """Play the bank if asked to, reach the gateway, and see which tokens are still unpaid. Raises Unreachable."""
    where: Address | None = t.settings.options.get("bank_listen")
    bank = None
    if where is not None:
        bank = PlayedBank(t, where)
        told = format_host_port(*bank.address)
        sys.stderr.write(f"paygate-conform: playing bank {t.world.bank_id} at {told}, waiting for the gateway\n")
        sys.stderr.flush()
        try:
            await bank.open_link_after(0, LINK_WAIT_MS)
        except Failed as failed:
            raise Unreachable(f"no gateway linked to the bank played at {told}: {failed}") from None
    wire = await connect_to(t, "reaching the gateway")
    try:
        await say_hello(t, wire, hello_of(t))
        tokens = await _valid_tokens(wire, t.world.tokens)
    except Failed:
        tokens = list(t.world.tokens)  # The cases say what is wrong.
    wire.close()
    if len(tokens) < len(t.world.tokens):
        told = f"{len(tokens)} of this world's {len(t.world.tokens)} tokens are unpaid at this gateway"
        sys.stderr.write(f"paygate-conform: {told}; when they run short, {_NEW_WORLD}\n")
        sys.stderr.flush()
    return GatewayShared(deque(tokens), bank, expired_tokens=deque(t.world.expired_tokens))


async def _valid_tokens(wire: Wire, tokens: Iterable[WorldToken]) -> list[WorldToken]:
    waiting = {wire.send(TokenQuery(token.transaction_id, token.passcode)): token for token in tokens}
    valid: set[int] = set()
    for _ in waiting:
        reply = await wire.receive()
        if isinstance(reply.message, TokenAck) and reply.message.status is TokenStatus.VALID:
            valid.add(reply.correlation_id)
    return [token for correlation_id, token in waiting.items() if correlation_id in valid]


_NEW_WORLD: Final = "make a new world (paygate-conform world) and set the gateway up with it"
"""What to do about tokens that are used up, since nobody can make them unpaid again."""

GATEWAY: Final = Catalogue("gateway", prepare)


def shared_of(t: Trial) -> GatewayShared:
    """What the run shares, under its type."""
    shared = t.shared
    assert isinstance(shared, GatewayShared)
    return shared


def played_bank(t: Trial) -> PlayedBank:
    """The bank behind the gateway, if the kit plays it; else the case is skipped."""
    bank = shared_of(t).bank
    if bank is None:
        raise Skipped(
            "it needs a bank that the kit plays: start the kit with --bank-listen, and the gateway linked to it"
        )
    return bank


# -- links -----------------------------------------------------------------------------------------------


async def connect_to(t: Trial, name: str = "") -> Wire:
    """A client's connection, on which nothing was said yet."""
    return await t.connect(name)


def hello_of(_t: Trial, **changes: Any) -> Hello:
    """The Hello of a client, with changes."""
    usual = Hello(role=Role.CLIENT, party_id="paygate-conform", versions=(limits.PROTOCOL_VERSION,))
    return replace(usual, **changes)


async def say_hello(t: Trial, wire: Wire, hello: Hello) -> HelloAck:
    """Open the link, and check what the gateway says of itself."""
    ack = await wire.ask(hello, HelloAck)
    require(ack.role is Role.GATEWAY, "a HelloAck of role GATEWAY", ack)
    gateway_id = t.world.gateway.gateway_id
    require(ack.party_id == gateway_id, f"a HelloAck of {gateway_id}", ack)
    require(ack.version == limits.PROTOCOL_VERSION, "version 1, the highest that both speak", ack)
    wire.is_open = True
    return ack


async def open_link(t: Trial, name: str = "") -> Wire:
    """An open link of a client."""
    wire = await connect_to(t, name)
    await say_hello(t, wire, hello_of(t))
    return wire


# -- tokens ----------------------------------------------------------------------------------------------


def new_token(t: Trial) -> WorldToken:
    """An unpaid token for this case alone."""
    shared = shared_of(t)
    if not shared.tokens:
        told = (
            f"the {shared.unpaid_count} tokens of this world that were unpaid at this gateway at the start are used up"
        )
        raise WorldUsedUp(f"{told}; {_NEW_WORLD}")
    return shared.tokens.popleft()


async def query(wire: Wire, token: WorldToken, passcode: str | None = None) -> TokenAck:
    """Ask for a token, by default with its own passcode."""
    return await wire.ask(TokenQuery(token.transaction_id, passcode or token.passcode), TokenAck)


async def require_status(wire: Wire, token: WorldToken, status: TokenStatus) -> TokenAck:
    """Ask for a token, which must have this status."""
    ack = await query(wire, token)
    require(ack.status is status, f"a TokenAck {status.name}", ack)
    return ack


async def until_status(t: Trial, wire: Wire, token: WorldToken, status: TokenStatus) -> TokenAck:
    """Ask until a token that is in flight has another status, which must be this one."""
    deadline_ms = t.now_ms + t.settings.patience_ms
    while (ack := await query(wire, token)).status is TokenStatus.IN_FLIGHT and t.now_ms < deadline_ms:
        await t.sleep(20)
    require(ack.status is status, f"a TokenAck {status.name} once the payment has ended", ack)
    return ack


def wrong_passcode(token: WorldToken) -> str:
    """A passcode of the same length that is not the token's."""
    last = token.passcode[-1]
    return token.passcode[:-1] + ("1" if last != "1" else "2")


# -- what any answering end must do ----------------------------------------------------------------------


def unknown_query(t: Trial) -> TokenQuery:
    """A well-formed query for a token that nobody issued."""
    return TokenQuery(f"U{t.random_bytes(12).hex()}", "nobody-knows")


def unknown_credentials(t: Trial) -> EncryptedCredentials:
    """Well-formed credentials in a session that nobody opened."""
    random = t.random_bytes
    return EncryptedCredentials(random(16), random(16), t.wall_ms(), random(8), random(304))


def unknown_status(t: Trial) -> StatusQuery:
    """A well-formed question for a payment of a token that nobody issued."""
    return StatusQuery(t.random_bytes(16), f"U{t.random_bytes(12).hex()}", "nobody-knows")


GATEWAY_END: Final = AnsweringEnd(
    catalogue=GATEWAY,
    role=Role.GATEWAY,
    caller_role=Role.CLIENT,
    link_key=None,
    connect=connect_to,
    hello=hello_of,
    say_hello=say_hello,
    requests={TokenQuery: unknown_query, EncryptedCredentials: unknown_credentials, StatusQuery: unknown_status},
)
"""How the cases that hold for every answering end meet a gateway."""
