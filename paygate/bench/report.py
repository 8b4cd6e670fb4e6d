"""Results as text: a table of what was measured, and the goals beside it."""

from collections.abc import Iterable, Sequence
from statistics import median
from typing import Final

from paygate.bench.results import SEARCH_ROUND, Judged, Results, Sample, judge

_NOTHING: Final = "–"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns with a blank line's worth of room between them; numbers (all but the first column) to the right."""
    lines = [head, *rows]
    widths = [max(len(line[n]) for line in lines) for n in range(len(head))]
    texts = []
    for line in lines:
        cells = [
            cell.ljust(w) if n == 0 else cell.rjust(w) for n, (cell, w) in enumerate(zip(line, widths, strict=True))
        ]
        texts.append("  ".join(cells).rstrip())
    return "\n".join(texts)


def report(results: Results) -> str:
    """Everything that was measured, in the order in which it was."""
    parts = [_machine(results)]
    if results.limits:
        rows = [(name, _count(rate)) for name, rate in results.limits.items()]
        parts.append(_titled("The machine's limits", table(("", "per second"), rows)))
    if any(s.offered_rate is None for s in results.samples):
        parts.append(_titled("Closed loop: payments and transactions a second", _samples(results)))
    if any(s.offered_rate is not None for s in results.samples):
        parts.append(_titled("Open loop: latency from the intended start", _curve(results)))
    if results.stages:
        parts.append(_titled("Where the time of a payment goes, in microseconds", _stages(results)))
    for growth in results.growth:
        rows = [(_count(x), f"{y:.4g}") for x, y in growth.points]
        parts.append(_titled(growth.name, table((growth.x_label, growth.y_label), rows)))
    judged = judge(results)
    if judged:
        parts.append(_titled("Goals", table(_GOAL_HEAD, [_goal_row(one) for one in judged])))
    missing = [f"{name} was not measured: {text}" for name, text in results.missing.items()]
    return "\n\n".join([*parts, *missing]) + "\n"


def _machine(results: Results) -> str:
    return "\n".join(f"{name}: {value}" for name, value in {**results.machine, **results.options}.items())


def _titled(title: str, text: str) -> str:
    return f"{title}\n{'-' * len(title)}\n{text}"


def _samples(results: Results) -> str:
    kinds: dict[tuple[str, str, int], list[Sample]] = {}
    for sample in results.samples:
        if sample.offered_rate is None:
            kinds.setdefault((sample.subject, sample.variant, sample.client_count), []).append(sample)
    rows = []
    for (subject, variant, client_count), samples in kinds.items():
        # The search for the best client count, and warming up, count only where nothing else was measured.
        counted = [s for s in samples if s.round_number > SEARCH_ROUND] or samples
        rates = [s.rate for s in counted]
        rows.append(
            (
                f"{subject} ({variant})" if variant else subject,
                str(client_count),
                _count(median(rates)),
                f"{_count(min(rates))} to {_count(max(rates))}",
                str(len(counted)),
                _median_latency(counted, "p50"),
                _median_latency(counted, "p99"),
            )
        )
    told = "\n".join(f"{name}: {title}" for name, title in results.titles.items())
    return table(("", "clients", "median", "range", "rounds", "p50 ms", "p99 ms"), rows) + (f"\n{told}" if told else "")


def _curve(results: Results) -> str:
    samples = [s for s in results.samples if s.offered_rate is not None]
    rows = [
        (
            s.variant,
            str(s.client_count),
            _count(s.offered_rate or 0),
            _count(s.rate),
            *(f"{s.latency_us[name] / 1000:.2f}" for name in ("p50", "p90", "p99", "p99.9", "max")),
        )
        for s in sorted(samples, key=lambda s: (s.variant, s.offered_rate or 0))
    ]
    return table(("", "clients", "offered/s", "paid/s", "p50 ms", "p90", "p99", "p99.9", "max"), rows)


def _stages(results: Results) -> str:
    return "\n\n".join(f"{name}\n{profile.table()}" for name, profile in results.stages.items())


_GOAL_HEAD: Final = ("", "suite, clients", "measured", "range", "goal", "")


def _goal_row(judged: Judged) -> tuple[str, ...]:
    goal = f"{'≥' if judged.is_floor else '≤'} {judged.bound:g}"
    if judged.value is None or judged.lowest is None or judged.highest is None:
        return judged.text, judged.variant, _NOTHING, _NOTHING, goal, "not measured"
    verdict = "met" if judged.is_met else "MISSED"
    return (
        judged.text,
        judged.variant,
        _ratio(judged.value),
        f"{_ratio(judged.lowest)} to {_ratio(judged.highest)}",
        goal,
        f"{verdict}{f' ({judged.note})' if judged.note else ''}",
    )


def _ratio(value: float) -> str:
    return f"{value:.2f}" if value < 100 else _count(value)


def _count(value: float) -> str:
    return f"{value:,.0f}"


def _median_latency(samples: Sequence[Sample], name: str) -> str:
    known = [s.latency_us[name] for s in samples if name in s.latency_us]
    return f"{median(known) / 1000:.2f}" if known else _NOTHING
