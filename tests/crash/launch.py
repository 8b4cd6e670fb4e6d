"""Runs one of the real programs with failpoints around it: `python -m crash.launch PROGRAM [OPTIONS] -- ARGUMENTS`.

    python -m crash.launch bank --die-at bank.commit.before:3 -- serve --state var/bank --port 0

The program's own `main` runs with these arguments and kills its process at the third hit of that point. `--list` tells
all points.
"""

import argparse
import importlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from crash.hooks import Hits, Hooks
from crash.points import POINTS

MAINS: Final = {
    "bank": "paygate.bank.__main__",
    "gateway": "paygate.gateway.__main__",
    "client": "paygate.client.__main__",
}
"""The module of each program."""
POLL_MS: Final = 150
"""How often the servers look for new lines: once a second would be waited for in every round."""
CHECKPOINT_PAGE_COUNT: Final = 40
"""So that a round's few payments come to a checkpoint of the log."""
_SETTINGS: Final = {
    "paygate.bank.server:POLL_MS": POLL_MS,
    "paygate.gateway.server:RECORDS_POLL_MS": POLL_MS,
    "paygate.files.sqlite:CHECKPOINT_PAGE_COUNT": CHECKPOINT_PAGE_COUNT,
}


@dataclass(frozen=True, slots=True)
class Plan:
    """What is done to a program before it runs."""

    deaths: Mapping[str, int] = field(default_factory=dict)
    """At which hit of which point it dies."""
    hits_path: Path | None = None
    """Where to count the hits of all points."""
    clock_ahead_ms: int = 0
    """For a client: how much later than now it asks."""
    mutant: str = ""
    """A bug to put in (`mutants.py`), to see that it is found."""


def prepare(program: str, command: str, plan: Plan) -> Hooks:
    """Change this process for the program that is about to run in it."""
    from crash.mutants import MUTANTS

    for target, value in _SETTINGS.items():
        module_name, _, name = target.partition(":")
        setattr(importlib.import_module(module_name), name, value)
    if plan.mutant:
        MUTANTS[plan.mutant](program)
    if plan.clock_ahead_ms:
        _set_ahead(plan.clock_ahead_ms)
    hits = None if plan.hits_path is None else Hits(plan.hits_path)
    hooks = Hooks(program, command, plan.deaths, hits)
    hooks.install()
    return hooks


def _set_ahead(ms: int) -> None:
    """As if a client was started so much later: what it asks of the time is the wall clock."""
    from paygate.client.client import PaygateClient
    from paygate.clock import Now, system_now

    def later() -> Now:
        now = system_now()
        return Now(now.mono_ms, now.wall_ms + ms)

    defaults = PaygateClient.__init__.__kwdefaults__
    assert defaults is not None
    defaults["clock"] = later


def main(arguments: Sequence[str] | None = None) -> int:
    """The program. Returns the exit code of the program that it runs."""
    parser = argparse.ArgumentParser(prog="crash.launch", description=__doc__, allow_abbrev=False)
    parser.add_argument("program", choices=MAINS, nargs="?")
    parser.add_argument("--die-at", action="append", default=[], metavar="POINT[:COUNT]", help="at its COUNTth hit")
    parser.add_argument("--hits", type=Path, metavar="FILE", help="count the hits of all points there")
    parser.add_argument("--list", action="store_true", help="tell all points")
    words = list(sys.argv[1:] if arguments is None else arguments)
    at = words.index("--") if "--" in words else len(words)
    options, own = parser.parse_args(words[:at]), words[at + 1 :]
    if options.list:
        for point in POINTS.values():
            print(f"{point.name:42} {point.meaning}")
        return 0
    if options.program is None or not own:
        parser.error("expected a program, and behind -- its arguments")
    module = importlib.import_module(MAINS[options.program])
    prepare(options.program, own[0], Plan(parse_deaths(options.die_at, parser), options.hits))
    sys.argv[1:] = own
    return int(module.main())


def parse_deaths(texts: Sequence[str], parser: argparse.ArgumentParser) -> dict[str, int]:
    """`POINT[:COUNT]`, several. Ends the program at one that is none."""
    deaths = {}
    for text in texts:
        name, _, count = text.partition(":")
        if name not in POINTS:
            parser.error(f"--die-at {text}: there is no point {name}; --list tells all")
        if count and not (count.isdecimal() and int(count) > 0):
            parser.error(f"--die-at {text}: expected a number of hits behind ':', 1 or more")
        deaths[name] = int(count or 1)
    return deaths


if __name__ == "__main__":
    sys.exit(main())
