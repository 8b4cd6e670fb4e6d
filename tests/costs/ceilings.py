"""The ceilings of what a payment may cost, and what is wrong if it costs more, or less."""

import json
import platform
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from costs.measure import BATCHES, PROGRAMS, Counts, Measured

PATH: Final = Path(__file__).with_name("ceilings.json")
SLACK_PER_BATCH: Final = 0.5
"""By how much a count may be above its ceiling: less than one call a batch, so that none can be added."""
FUNCTIONS: Final = "function calls"
FUNCTIONS_SLACK_PER_BATCH: Final = 1.0
"""The same for these: now and then a run has three of them more in one batch of eight, of twenty thousand in each."""
MEMORY: Final = frozenset({"allocations", "bytes allocated", "bytes copied"})
MEMORY_SLACK: Final = 0.002
"""By which share these may be, if that is more: five runs differed by 0.01 % in batches of 64, by 0.1 % in batches of
one. One allocation more a payment, of some hundreds, is above it."""
GAIN: Final = 0.1
"""A count that is so far below its ceiling is a gain to be kept: lower the ceiling."""
UPDATE: Final = "PYTHONPATH=tests python -m costs.update"
SHOW: Final = "PYTHONPATH=tests python -m costs.show"


@dataclass(frozen=True, slots=True)
class Ceilings:
    """What was measured on one platform."""

    versions: dict[str, str]
    """As `versions()` was then."""
    payment: dict[str, dict[str, dict[str, float]]]
    """The counts of a payment, by program and by the size of batches, in digits."""


def this_platform() -> str:
    """What counts depend on, other than our own code: the interpreter, and the system calls of an architecture."""
    return f"{platform.python_implementation()} {'.'.join(platform.python_version_tuple()[:2])}, {platform.machine()}"


def load() -> Ceilings | None:
    """The checked-in ceilings for this platform; None if nobody measured there."""
    found = _read().get(this_platform())
    return Ceilings(**found) if found else None


def save(measured: Measured) -> None:
    """Make what was measured the ceilings for this platform."""
    found = _read()
    payment = {
        program: {str(size): _rounded(measured.counts(program, size)) for size in BATCHES} for program in PROGRAMS
    }
    found[this_platform()] = asdict(Ceilings(versions(), payment))
    PATH.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="ascii")


def versions() -> dict[str, str]:
    """Of what works for us in the counted programs, and so has a part in the counts."""
    return {name: version(name) for name in ("apsw", "cryptography")} | {"libc": " ".join(platform.libc_ver())}


def problems(program: str, size: int, counts: Counts, ceilings: Counts) -> list[str]:
    """One line for each count that is above its ceiling or far below it, the worst first."""
    found = []
    for name in counts.keys() | ceilings.keys():
        now, ceiling = counts.get(name, 0.0), ceilings.get(name, 0.0)
        slack = (FUNCTIONS_SLACK_PER_BATCH if name == FUNCTIONS else SLACK_PER_BATCH) / size
        if name in MEMORY:
            slack = max(slack, ceiling * MEMORY_SLACK)
        a_batch = f"({round(ceiling * size, 1):g} -> {round(now * size, 1):g} a batch)"
        change = f"{program}, batches of {size}: {name} {ceiling:g} -> {round(now, 4):g} a payment {a_batch}"
        if now > ceiling + slack:
            found.append((now / max(ceiling, SLACK_PER_BATCH / size), f"{change}: grew"))
        elif now < min(ceiling * (1 - GAIN), ceiling - SLACK_PER_BATCH / size):
            found.append((0.0, f"{change}: fell; keep the gain and lower the ceiling"))
    return [text for _, text in sorted(found, reverse=True)]


def _read() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(PATH.read_text(encoding="ascii")) if PATH.exists() else {}
    return found


def _rounded(counts: Counts) -> dict[str, float]:
    return {name: round(count, 4) for name, count in counts.items()}
