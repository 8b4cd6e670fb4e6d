"""`paygate-bench`: compare paygate with its peers, put a load on a gateway, show where the time goes and what grows."""

import argparse
import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

from paygate.arguments import address
from paygate.bench.orders import Clients
from paygate.bench.outputs import (
    check_directory,
    check_file,
    check_installed,
    run_directory,
    text_of,
    too_few_descriptors,
)
from paygate.bench.results import Results
from paygate.cli import ExitCode, PaygateExit, run
from paygate.codec.codes import KemId
from paygate.net.listen import raise_descriptor_limit

PROGRAM: Final = "paygate-bench"
DEFAULT_DIRECTORY: Final = "var/bench"
DESCRIPTOR_COUNT: Final = 8_192
"""For four thousand connections and what else is open."""
SPARE_DESCRIPTOR_COUNT: Final = 100
"""What else is open, at most."""
_SUITES: Final = {"x25519": KemId.X25519, "hybrid": KemId.MLKEM768_X25519}
_SUBJECTS: Final = ("tokens", "accounts", "history", "connections-log", "connections")
_CLIENTS: Final = {"prepared": Clients.PREPARED, "sealing": Clients.SEALING}

T = TypeVar("T")


def main() -> int:
    """Entry point of the console script."""
    return run(PROGRAM, _main)


def _main() -> int:
    check_installed("hdrh", "tqdm")
    options = _parser().parse_args()
    _check_outputs(options)
    for ending in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(ending) is not signal.SIG_IGN:  # nohup has its program outlive the terminal
            signal.signal(ending, _terminated)
    if raise_descriptor_limit(DESCRIPTOR_COUNT) < _connection_count_max(options) + SPARE_DESCRIPTOR_COUNT:
        raise too_few_descriptors()
    command: Callable[[argparse.Namespace, Path, Results], None] = options.command
    with run_directory(options.directory) as directory:
        results = _results(options, directory)
        try:
            command(options, directory, results)
        except BaseException as error:
            # What was measured until then took minutes, and is worth as much as before.
            results.error = text_of(error)
            raise
        finally:
            _write(options, results)
    return ExitCode.OK


def _terminated(number: int, _frame: object) -> None:
    # As an exception, so that servers and peers are ended on the way out.
    raise SystemExit(128 + number)


def _check_outputs(options: argparse.Namespace) -> None:
    check_directory("--directory", options.directory)
    if options.plots is not None:
        check_installed("matplotlib")
        check_directory("--plots", options.plots)
    if options.json is not None:
        check_file("--json", options.json)
    if getattr(options, "histogram", None) is not None:
        check_file("--histogram", options.histogram)


def _connection_count_max(options: argparse.Namespace) -> int:
    """How many connections one process has at most."""
    if options.command is _load:
        return int(options.connections)
    from paygate.bench.campaign import IDLE_COUNT

    return IDLE_COUNT


# -- commands --------------------------------------------------------------------------------------------


def _compare(options: argparse.Namespace, directory: Path, results: Results) -> None:
    from paygate.bench.campaign import Campaign, CampaignOptions  # late: `--help` needs none of it
    from paygate.bench.progress import ProgressBar

    wanted = CampaignOptions(
        connection_counts=tuple(options.connections),
        suites=tuple(options.suites),
        round_count=options.rounds,
        second=options.seconds,
        seed=options.seed,
        peers=tuple(options.peers) if options.peers is not None else None,
    )
    campaign = Campaign(directory, wanted, results)
    with ProgressBar(campaign.step_count) as progress:
        campaign.run(progress)


def _load(options: argparse.Namespace, directory: Path, results: Results) -> None:
    from paygate.bench.measure import HELD_TEXT, READ_TEXT
    from paygate.bench.single import LoadOptions, Target, load_own, load_target

    given = [options.gateway, options.bank_root, options.tokens, options.customers]
    if any(given) and not all(given):
        raise PaygateExit(
            "a load on a gateway that runs already needs all of --gateway, --bank-root, --tokens and --customers; "
            "without any of them the bench starts servers of its own",
            ExitCode.USAGE,
        )
    wanted = LoadOptions(
        connection_count=options.connections,
        payment_count=options.payments,
        rate=options.rate,
        clients=options.clients,
        suite=options.suite,
        seed=options.seed,
    )
    is_held = all(given) and options.clients is Clients.PREPARED
    results.options["token queries"] = HELD_TEXT if is_held else READ_TEXT
    if all(given):
        paid = load_target(Target(options.gateway, options.bank_root, options.tokens, options.customers), wanted)
    else:
        paid = load_own(directory / "paygate", wanted)
    results.samples.append(paid.as_sample(options.suite, options.clients, 1))


def _growth(options: argparse.Namespace, directory: Path, results: Results) -> None:
    from paygate.bench.growth import GrowthRun
    from paygate.bench.progress import ProgressBar

    growth = GrowthRun(directory, results, size_max=options.rows, seed=options.seed)
    with ProgressBar(growth.step_count(options.subjects)) as progress:
        growth.run(options.subjects, progress.step)


def _results(options: argparse.Namespace, directory: Path) -> Results:
    from paygate.bench.surroundings import describe_machine

    left_out = {"command", "json", "plots", "histogram", "directory"}
    return Results(
        describe_machine(directory),
        {name: _plain(value) for name, value in vars(options).items() if name not in left_out and value is not None},
    )


def _plain(value: Any) -> Any:
    """An option's value as JSON has it."""
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, KemId):
        return next(name for name, suite in _SUITES.items() if suite is value)
    if isinstance(value, Clients):
        return value.value
    return value if isinstance(value, int | float) else str(value)


def _write(options: argparse.Namespace, results: Results) -> None:
    """Files first: who reads stdout may have gone away."""
    from paygate.bench.report import as_json, report

    if options.json is not None:
        options.json.write_text(json.dumps(as_json(results), indent=2) + "\n", encoding="utf-8")
    if getattr(options, "histogram", None) is not None and results.samples:
        options.histogram.write_text(results.samples[0].histogram + "\n", encoding="ascii")
    if results.samples or results.limits or results.growth or not results.error:
        sys.stdout.write(report(results))
    if options.plots is not None and not results.error:
        from paygate.bench.plots import draw

        for path in draw(results, options.plots):
            sys.stdout.write(f"drawn: {path}\n")


# -- arguments -------------------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    from paygate.bench.measure import ROUND_COUNT_MAX  # late: it needs packages of which `check_installed` tells

    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Measures paygate's servers beside what the same machine can do otherwise. Servers and peers are "
        "started, measured and ended by the bench, on loopback.",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    compare = _add(commands, "compare", _compare, "Compare with the peers in one run, and judge the goals.")
    compare.add_argument(
        "--connections", type=_counts, default=[1, 64, 256], metavar="N,N…", help="connection counts (1,64,256)"
    )
    compare.add_argument(
        "--suites", type=_suites, default=list(_SUITES.values()), metavar="NAME,NAME", help="x25519, hybrid (both)"
    )
    compare.add_argument("--rounds", type=_count, default=5, metavar="N", help="rounds; medians are of them (5)")
    compare.add_argument(
        "--seconds",
        type=_seconds,
        default=3.0,
        metavar="S",
        help="about how long one measurement takes; pgbench counts whole seconds (3)",
    )
    compare.add_argument(
        "--peers", type=_names, metavar="NAME,NAME", help="only these peers, or 'none' (all; the report has the names)"
    )

    load = _add(commands, "load", _load, "Put one load on a gateway, and check every receipt.")
    load.add_argument("--connections", type=_count, default=64, metavar="N", help="connections, 1 to 4096 (64)")
    load.add_argument(
        "--payments", type=_payments, default=5_000, metavar="N", help=f"payments, at most {ROUND_COUNT_MAX} (5000)"
    )
    load.add_argument(
        "--rate", type=_rate, metavar="R", help="begin R payments a second, whatever the servers do (open loop)"
    )
    load.add_argument("--suite", type=_suite, default=KemId.X25519, metavar="NAME", help="x25519 or hybrid (x25519)")
    load.add_argument(
        "--clients",
        type=_clients,
        default=Clients.PREPARED,
        metavar="HOW",
        help="prepared: credentials are sealed before the clock runs, so that the machine serves the servers; sealing: "
        "clients seal and verify as they pay (prepared)",
    )
    load.add_argument("--histogram", type=Path, metavar="FILE", help="write the latencies in the HDR log format")
    load.add_argument("--gateway", type=address, metavar="HOST:PORT", help="a gateway that runs already")
    load.add_argument("--bank-root", type=Path, metavar="FILE", help="its bank's root key")
    load.add_argument("--tokens", type=Path, metavar="FILE", help="unpaid tokens there, as in PaymentTokensData.txt")
    load.add_argument(
        "--customers", type=Path, metavar="FILE", help="who pays, as in NetbankingUsers.txt, with plain passwords"
    )

    growth = _add(commands, "growth", _growth, "Show how cost, start and memory grow with what the servers hold.")
    growth.add_argument(
        "--rows",
        type=_rows,
        default=1_000_000,
        metavar="N",
        help="the largest number of tokens, accounts, payments made before (history) and lines of LogFiles.txt "
        "(connections-log), up to 10000000; of the last two 1000000 at most, whatever is asked (1000000)",
    )
    growth.add_argument(
        "--subjects",
        type=_subjects,
        default=list(_SUBJECTS),
        metavar="NAME,NAME",
        help=f"what grows: {', '.join(_SUBJECTS)} (all)",
    )
    return parser


def _add(
    commands: Any, name: str, command: Callable[[argparse.Namespace, Path, Results], None], text: str
) -> argparse.ArgumentParser:
    sub: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
    sub.set_defaults(command=command)
    sub.add_argument("--json", type=Path, metavar="FILE", help="write all results there")
    sub.add_argument("--plots", type=Path, metavar="DIR", help="draw the results there (SVG)")
    sub.add_argument("--seed", type=_count, default=1, metavar="N", help="of customers and schedules (1)")
    sub.add_argument(
        "--directory",
        type=Path,
        default=Path(DEFAULT_DIRECTORY),
        metavar="DIR",
        help=f"where stores are made and removed again: the disk that is measured ({DEFAULT_DIRECTORY})",
    )
    return sub


def _whole(text: str, low: int, high: int) -> int:
    if not (text.isascii() and text.isdecimal()) or not low <= int(text) <= high:
        raise argparse.ArgumentTypeError(f"expected a whole number from {low} to {high}")
    return int(text)


def _count(text: str) -> int:
    return _whole(text, 1, 4096)


def _payments(text: str) -> int:
    from paygate.bench.measure import ROUND_COUNT_MAX

    # Fewer than this leave nothing to count once the ramp is left out.
    return _whole(text, 100, ROUND_COUNT_MAX)


def _rows(text: str) -> int:
    return _whole(text, 1_000, 10_000_000)


def _several(text: str, one: Callable[[str], T]) -> list[T]:
    """A list of values, each of them once: to measure one twice needs its place twice."""
    return list(dict.fromkeys(one(part.strip()) for part in text.split(",")))


def _counts(text: str) -> list[int]:
    return _several(text, _count)


def _subjects(text: str) -> list[str]:
    return _several(text, lambda part: _one_of(part, {name: name for name in _SUBJECTS}))


def _number(text: str, low: float, high: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not low <= value <= high:
        raise argparse.ArgumentTypeError(f"expected a number from {low:g} to {high:g}")
    return value


def _seconds(text: str) -> float:
    return _number(text, 0.1, 60)


def _rate(text: str) -> float:
    return _number(text, 1, 1_000_000)


def _one_of(text: str, known: dict[str, Any]) -> Any:
    if text not in known:
        raise argparse.ArgumentTypeError(f"expected one of {', '.join(known)}")
    return known[text]


def _suite(text: str) -> Any:
    return _one_of(text, _SUITES)


def _suites(text: str) -> list[Any]:
    return _several(text, _suite)


def _clients(text: str) -> Any:
    return _one_of(text, _CLIENTS)


def _names(text: str) -> list[str]:
    from paygate.bench.peers.catalogue import make_peers

    known = {peer.name: peer.name for peer in make_peers()}
    return [] if text == "none" else _several(text, lambda part: _one_of(part, known))


if __name__ == "__main__":
    sys.exit(main())
