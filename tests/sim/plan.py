"""Who is there in a run and what they mean to do: customers, merchants, tokens and payments, drawn from the seed."""

import random
from dataclasses import dataclass
from typing import Final

from builders import BANK_ID
from sim.agenda import START_WALL_MS

from paygate.gateway.tokens import Token

BANK: Final = BANK_ID
"""The bank's name and address."""
CURRENCY: Final = "INR"
CUSTOMER_COUNT_MAX: Final = 6
"""So many users are known, each with two passwords, so that their Argon2id is computed once for all seeds."""


@dataclass(frozen=True, slots=True)
class GatewayPlan:
    """A gateway, honest or not."""

    gateway_id: str
    link_key: bytes
    is_evil: bool


@dataclass(frozen=True, slots=True)
class CustomerPlan:
    """A customer of the bank. User ID and passwords are canaries: no gateway may ever see them (I7)."""

    name: str
    """Of the machine; also the customer ID."""
    user_id: str
    password: str
    wrong_password: str
    amount_minor: int


@dataclass(frozen=True, slots=True)
class MerchantPlan:
    """A merchant."""

    merchant_id: str
    name: str
    amount_minor: int


@dataclass(frozen=True, slots=True)
class TokenPlan:
    """A token, and when its merchant hands it in and withdraws it (after the start, true time)."""

    gateway_id: str
    token: Token
    issued_ms: int
    cancelled_ms: int | None


@dataclass(frozen=True, slots=True)
class ShoppingPlan:
    """A customer means to pay a token."""

    customer: CustomerPlan
    token: TokenPlan
    start_ms: int
    think_ms: int
    """From the acknowledgement to the password."""
    wrong_passcode_count: int
    """Tries with a wrong passcode before the right one."""
    wrong_password_count: int
    """Payments with a wrong password before the right one."""
    is_hasty: bool
    """Whether a payment that the gateway calls refused is followed by another one at once."""
    payment_count_max: int
    """After so many payments of this token that were declined or refused the customer gives up."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Everybody."""

    gateways: tuple[GatewayPlan, ...]
    customers: tuple[CustomerPlan, ...]
    merchants: tuple[MerchantPlan, ...]
    tokens: tuple[TokenPlan, ...]
    shopping: tuple[ShoppingPlan, ...]
    has_evil_client: bool
    active_ms: int
    """Within this time the payments begin."""

    @property
    def is_honest(self) -> bool:
        """Whether nobody lies."""
        return not self.has_evil_client and not any(gateway.is_evil for gateway in self.gateways)

    @property
    def has_ending_tokens(self) -> bool:
        """Whether any token expires or is withdrawn, maybe between a customer's look and yes."""
        return any(one.token.expires_ms is not None or one.cancelled_ms is not None for one in self.tokens)


def draw_plan(source: random.Random) -> Plan:
    """A world that is small enough for things to meet, and different each time."""
    active_ms = source.choice((20_000, 60_000, 60_000, 180_000))
    gateways = [GatewayPlan("GW1", source.randbytes(32), False)]
    if source.random() < 0.4:
        gateways.append(GatewayPlan("GW2", source.randbytes(32), False))
    if source.random() < 0.25:
        gateways.append(GatewayPlan("GWX", source.randbytes(32), True))
    is_poor = source.random() < 0.3
    customers = [_draw_customer(source, n, is_poor) for n in range(source.randint(2, CUSTOMER_COUNT_MAX))]
    merchants = [MerchantPlan(f"M-{n}", f"Shop {n}", source.choice((0, 1_000))) for n in range(source.randint(1, 3))]
    has_odd_tokens = source.random() < 0.4
    tokens = [
        _draw_token(source, n, gateways, merchants, active_ms, has_odd_tokens=has_odd_tokens)
        for n in range(source.randint(6, 18))
    ]
    is_clumsy = source.random() < 0.4
    shopping = []
    for token in tokens:
        # Some tokens two or three shoppers want at once (T5).
        count = 1 if source.random() < 0.85 else source.randint(2, 3)
        shopping += [
            _draw_shopping(source, token, customers, active_ms, is_clumsy=is_clumsy, is_alone=count == 1)
            for _ in range(count)
        ]
    shopping.sort(key=lambda one: one.start_ms)
    has_evil_client = source.random() < 0.2
    return Plan(
        tuple(gateways), tuple(customers), tuple(merchants), tuple(tokens), tuple(shopping), has_evil_client, active_ms
    )


def _draw_customer(source: random.Random, number: int, is_poor: bool) -> CustomerPlan:
    amount_minor = source.choice((0, 5_000, 200_000)) if is_poor and source.random() < 0.5 else 100_000_000
    return CustomerPlan(
        f"C{number}",
        f"canary-user-{number}",
        f"canary-password-{number}",
        f"canary-mistyped-{number}",
        amount_minor,
    )


def _draw_token(
    source: random.Random,
    number: int,
    gateways: list[GatewayPlan],
    merchants: list[MerchantPlan],
    active_ms: int,
    *,
    has_odd_tokens: bool,
) -> TokenPlan:
    gateway, merchant = source.choice(gateways), source.choice(merchants)
    expires_after_ms, issued_ms, cancelled_ms = source.randrange(active_ms), source.randrange(active_ms), None
    is_expiring, is_late = source.random() < 0.2, source.random() < 0.2
    if has_odd_tokens and source.random() < 0.2:
        cancelled_ms = source.randrange(active_ms)
    token = Token(
        f"TX-{number}",
        f"{source.randrange(10**6):06}",
        merchant.merchant_id,
        merchant.name,
        source.choice((1, 999, 12_500, 150_000)),
        CURRENCY,
        START_WALL_MS + expires_after_ms if has_odd_tokens and is_expiring else None,
    )
    return TokenPlan(gateway.gateway_id, token, issued_ms if has_odd_tokens and is_late else 0, cancelled_ms)


def _draw_shopping(
    source: random.Random,
    token: TokenPlan,
    customers: list[CustomerPlan],
    active_ms: int,
    *,
    is_clumsy: bool,
    is_alone: bool,
) -> ShoppingPlan:
    wrong_passcode_count = source.choice((0, 0, 1, 6)) if is_clumsy else 0
    if not is_alone:
        # Who locks a token keeps those who know its passcode from asking for a quarter of an hour (T16).
        wrong_passcode_count = min(wrong_passcode_count, 1)
    wrong_password_count = source.choice((0, 0, 1, 3)) if is_clumsy else 0
    return ShoppingPlan(
        source.choice(customers),
        token,
        source.randrange(active_ms),
        source.choice((5, 500, 5_000, 20_000)),
        wrong_passcode_count,
        wrong_password_count,
        source.random() < 0.3,
        source.randint(1, 4),
    )
