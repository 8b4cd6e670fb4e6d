"""Customers whose balance a case can see, because nobody else has spent of it: each is for one case of one run."""

from collections import deque
from collections.abc import Iterable
from pathlib import Path

from paygate.conform.cases import Skipped, WorldUsedUp
from paygate.conform.world import WorldCustomer


class Spenders:
    """The SPENDING customers of a world that no case was given yet.

    Who is given to a case is noted first, in a file beside the world: so a run that is broken off in the middle of a
    case leaves nobody half spent for the next run, where a bank that is right would fail.
    """

    def __init__(self, customers: Iterable[WorldCustomer], note: Path | None = None) -> None:
        self._customers = deque(customers)
        self._note = note
        """Holds the user IDs of those who were given away, one a line; None if one run is all there is."""

    @classmethod
    def beside(cls, world: Path, customers: Iterable[WorldCustomer]) -> "Spenders":
        """Those of the world in this file."""
        return cls(customers, world.with_name(f"{world.stem}-spent.txt"))

    def take(self) -> WorldCustomer:
        """Somebody who has the balance that the world says. Raises Skipped: there is nobody, or no noting it."""
        spent = self._spent()
        while self._customers:
            customer = self._customers.popleft()
            if customer.user_id not in spent:
                self._write(customer.user_id)
                return customer
        raise WorldUsedUp(
            "all SPENDING customers of this world have spent; make a new world with paygate-conform world DIR and set "
            f"the bank up from it (or, if this bank was set up anew from the same world, remove {self._note})"
        )

    def _spent(self) -> set[str]:
        # Read each time: another run may be at work on the same world.
        try:
            return set() if self._note is None else set(self._note.read_text("utf-8").split("\n"))
        except FileNotFoundError:
            return set()
        except (OSError, ValueError) as error:
            raise Skipped(f"could not read who has spent in {self._note}: {error}") from None

    def _write(self, user_id: str) -> None:
        if self._note is None:
            return
        try:
            with self._note.open("a", encoding="utf-8") as note:
                note.write(f"{user_id}\n")
        except OSError as error:
            raise Skipped(f"could not note who spends in {self._note}: {error}") from None
