"""Results as text and as JSON: what was measured, ratios of it, and the goals beside it."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from statistics import median
from typing import Any, Final

from paygate.bench.codec_race import CodecTimes
from paygate.bench.goals import Judged, judge
from paygate.bench.ratios import Ratio, ratios_of
from paygate.bench.results import Results, Sample, measured

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
    if results.error:
        parts.append(f"ENDED EARLY, so this is not all: {results.error}")
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
        rows = [(_count(x) if float(x).is_integer() else f"{x:,.2f}", f"{y:.4g}") for x, y in growth.points]
        trend = f"\n{growth.trend}" if growth.trend else ""
        parts.append(_titled(growth.name, table((growth.x_label, growth.y_label), rows) + trend))
    if results.codec:
        parts.append(_titled("The codec: one encode and one decode, in microseconds", codec_table(results.codec)))
    ratios = ratios_of(results)
    if ratios:
        parts.append(_titled("Ratios: payments a second against what else is done a second", _ratios(ratios)))
    judged = judge(results)
    if judged:
        parts.append(_titled("Goals", goal_table(judged)))
    missing = [f"{name} was not measured: {text}" for name, text in results.missing.items()]
    return "\n\n".join([*parts, *missing]) + "\n"


def as_json(results: Results) -> dict[str, Any]:
    """Everything as plain data, ratios and goals included."""
    return {
        **asdict(results),
        "stages": {name: profile.to_json() for name, profile in results.stages.items()},
        "ratios": [asdict(ratio) for ratio in ratios_of(results)],
        "goals": [asdict(judged) for judged in judge(results)],
    }


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
        counted = measured(samples)
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
    told = "\n".join(_peer(results, name, title) for name, title in results.titles.items())
    return table(("", "clients", "median", "range", "rounds", "p50 ms", "p99 ms"), rows) + (f"\n{told}" if told else "")


def _peer(results: Results, name: str, title: str) -> str:
    version = f" ({results.versions[name]})" if results.versions.get(name) else ""
    settings = ", ".join(f"{key} {value}" for key, value in results.settings.get(name, {}).items())
    return f"{name}{version}: {title}{f'; {settings}' if settings else ''}"


def _curve(results: Results) -> str:
    samples = [s for s in results.samples if s.offered_rate is not None]
    rows = [
        (
            s.variant,
            str(s.client_count),
            _count(s.offered_rate or 0),
            f"{_count(s.rate)}{' fell behind' if s.fell_behind else ''}",
            *(f"{s.latency_us[name] / 1000:.2f}" for name in ("p50", "p90", "p99", "p99.9", "max")),
        )
        for s in sorted(samples, key=lambda s: (s.variant, s.offered_rate or 0))
    ]
    return table(("", "clients", "offered/s", "paid/s", "p50 ms", "p90", "p99", "p99.9", "max"), rows)


def _stages(results: Results) -> str:
    return "\n\n".join(f"{name}\n{profile.table()}" for name, profile in results.stages.items())


def _ratios(ratios: Sequence[Ratio]) -> str:
    """A table for each way of paying: a row for each thing compared with, a column for each count of connections."""
    tables = []
    for variant in dict.fromkeys(ratio.variant for ratio in ratios):
        of_variant = [ratio for ratio in ratios if ratio.variant == variant]
        counts = sorted({ratio.client_count for ratio in of_variant})
        found = {(ratio.against, ratio.client_count): ratio.value for ratio in of_variant}
        rows = [
            (against, *(_ratio(found[against, n]) if (against, n) in found else _NOTHING for n in counts))
            for against in dict.fromkeys(ratio.against for ratio in of_variant)
        ]
        rounds = " to ".join(str(n) for n in sorted({ratio.round_count for ratio in of_variant}))
        head = (f"paygate ({variant}), by connections; rounds: {rounds}", *map(str, counts))
        tables.append(table(head, rows))
    return "\n\n".join(tables)


def codec_table(times: Sequence[CodecTimes]) -> str:
    """Medians of the rounds; ratios are how many times as fast the compiled codec is."""
    rows = [
        (
            f"{one.kind} ({one.texts} texts)",
            *(f"{median(us):.2f}" if us else _NOTHING for us in (one.compiled_us, one.by_hand_us, one.construct_us)),
            *(_ratio(median(ratios)) if ratios else _NOTHING for ratios in (one.to_hand, one.to_construct)),
        )
        for one in times
    ]
    return table(("", "compiled", "by hand", "construct", "/ by hand", "/ construct"), rows)


def goal_table(judged: Iterable[Judged]) -> str:
    """Each goal beside what was measured, and the verdict."""
    return table(_GOAL_HEAD, [_goal_row(one) for one in judged])


_GOAL_HEAD: Final = ("", "suite, clients", "measured", "range", "rounds", "goal", "")


def _goal_row(judged: Judged) -> tuple[str, ...]:
    goal = f"{'≥' if judged.is_floor else '≤'} {judged.bound:g}"
    measured, between = _NOTHING, _NOTHING
    if judged.value is not None and judged.lowest is not None and judged.highest is not None:
        measured, between = _ratio(judged.value), f"{_ratio(judged.lowest)} to {_ratio(judged.highest)}"
    note = f" ({judged.note})" if judged.note else ""
    return judged.text, judged.variant, measured, between, str(judged.round_count), goal, f"{_verdict(judged)}{note}"


def _verdict(judged: Judged) -> str:
    if judged.is_met is None:
        return "not measured" if judged.value is None else "no verdict: too few rounds"
    return "met" if judged.is_met else "MISSED"


def _ratio(value: float) -> str:
    if value < 0.1:
        return f"{value:.2g}"
    return f"{value:.2f}" if value < 100 else _count(value)


def _count(value: float) -> str:
    return f"{value:,.0f}"


def _median_latency(samples: Sequence[Sample], name: str) -> str:
    known = [s.latency_us[name] for s in samples if name in s.latency_us]
    return f"{median(known) / 1000:.2f}" if known else _NOTHING
