"""The roles that can be tested: what is played against each, its cases, and its own options."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from paygate.conform.bank_cases import BANK
from paygate.conform.bank_limit_cases import add_options
from paygate.conform.cases import Catalogue


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


ROLES: Final[dict[str, RoleUnderTest]] = {
    "bank": RoleUnderTest(
        BANK, "where the bank listens", "Plays a gateway, and its customers' clients, against a bank.", add_options
    ),
}
