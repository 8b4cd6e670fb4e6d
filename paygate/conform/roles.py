"""The roles that can be tested: what is played against each, its cases, and its own options."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from paygate.conform import client_options, gateway_side
from paygate.conform.bank_cases import BANK
from paygate.conform.bank_limit_cases import add_options
from paygate.conform.cases import Catalogue
from paygate.conform.client_cases import CLIENT
from paygate.conform.gateway_cases import GATEWAY

JOBS: Final = 32
"""Cases at once unless told otherwise: most of them wait for somebody most of the time."""


@dataclass(frozen=True, slots=True)
class RoleUnderTest:
    """How a role is tested."""

    catalogue: Catalogue
    address_means: str
    """What HOST:PORT is."""
    about: str
    """What the kit plays, for the help."""
    add_options: Callable[[argparse.ArgumentParser], None] | None = None
    """Adds the role's own options; cases find them in `Settings.options`."""
    jobs_of: Callable[[argparse.Namespace], int] = lambda options: options.jobs or JOBS
    """How many cases run at once, by the options. Raises PaygateExit for options that don't fit together."""
    allowance_ms_of: Callable[[argparse.Namespace], int] = lambda _options: 0
    """How much longer each case may take (`Settings.allowance_ms`)."""


ROLES: Final[dict[str, RoleUnderTest]] = {
    "bank": RoleUnderTest(
        BANK, "where the bank listens", "Plays a gateway, and its customers' clients, against a bank.", add_options
    ),
    "gateway": RoleUnderTest(
        GATEWAY,
        "where the gateway listens",
        "Plays clients, and with --bank-listen the bank behind it, against a gateway.",
        gateway_side.add_options,
    ),
    "client": RoleUnderTest(
        CLIENT,
        "where the client is waited for; port 0 means a free one for each case, which --run hands on",
        "Plays a gateway, and its bank, to a client, which it starts itself; or it tells a person what to type.",
        client_options.add_options,
        client_options.jobs_of,
        client_options.allowance_ms_of,
    ),
}
