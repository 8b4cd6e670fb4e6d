"""Results as pictures (SVG): rates, the throughput-latency curve, latency percentiles, stages, growth."""

import re
from pathlib import Path
from typing import Any, Final

from matplotlib import colormaps
from matplotlib.figure import Figure

from paygate.bench.results import (
    PAYGATE,
    SEARCH_ROUND,
    Growth,
    Results,
    Sample,
    best_client_count,
    measured,
    median_rate,
    of,
)
from paygate.bench.stages import MEANINGS, StageProfile

_SIZE_INCHES: Final = (10.0, 5.0)
_COLOURS: Final = [colormaps["tab20"](number) for number in range(20)]
"""In pairs of a dark and a light one: more than there are stages."""
_LINE_STYLES: Final = ("-", "--", ":")
_PERCENTILES: Final = ("p50", "p90", "p99", "p99.9", "max")


def draw(results: Results, directory: Path) -> list[Path]:
    """Draw what there are results for; gives the files. Raises OSError."""
    directory.mkdir(parents=True, exist_ok=True)
    drawn = []
    if any(s.offered_rate is None for s in results.samples):
        drawn.append(_draw_rates(results, directory / "rates.svg"))
    curve = _curve_of(results)
    if curve:
        drawn.append(_draw_curve(curve, directory / "throughput-latency.svg"))
        drawn.append(_draw_percentiles(curve, directory / "percentiles.svg"))
    if results.stages:
        drawn.append(_draw_stages(results.stages, directory / "stages.svg"))
    for growth in results.growth:
        name = re.sub("[^a-z0-9]+", "-", growth.name.lower())
        drawn.append(_draw_growth(growth, directory / f"growth-{name}.svg"))
    return drawn


def _curve_of(results: Results) -> list[Sample]:
    """The open-loop samples, by what was offered: one a rate, without the rounds that repeat one of the rates."""
    samples = [s for s in results.samples if s.offered_rate is not None]
    samples = [s for s in samples if s.round_number == SEARCH_ROUND] or samples
    return sorted(samples, key=lambda s: (s.variant, s.offered_rate or 0))


def _draw_rates(results: Results, path: Path) -> Path:
    """One bar a subject: ours at each client count, each peer at its best."""
    bars: list[tuple[str, float]] = []
    for variant in sorted({s.variant for s in of(results.samples, PAYGATE)}):
        for client_count in sorted({s.client_count for s in of(results.samples, PAYGATE, variant=variant)}):
            rate = median_rate(measured(of(results.samples, PAYGATE, client_count, variant)))
            bars.append((f"paygate, {variant}, {client_count} connections", rate))
    for peer in sorted({s.subject for s in results.samples} - {PAYGATE}):
        best = best_client_count(results.samples, peer)
        bars.append((f"{peer}, {best} clients", median_rate(measured(of(results.samples, peer, best)))))
    figure, axes = _canvas()
    labels, rates = zip(*reversed(bars), strict=True)
    colours = ["tab:blue" if label.startswith(PAYGATE) else "tab:grey" for label in labels]
    axes.barh(labels, rates, color=colours)
    axes.set_xlabel("per second, closed loop, median")
    return _save(figure, path)


def _draw_curve(curve: list[Sample], path: Path) -> Path:
    """Latencies against what was offered; a cross where the servers fell behind: a longer round has it higher."""
    figure, axes = _canvas()
    for colour, variant in zip(_COLOURS[::2], sorted({s.variant for s in curve}), strict=False):
        samples = [s for s in curve if s.variant == variant]
        for name, style in (("p50", "-"), ("p99", "--")):
            points = [(s.offered_rate or 0, s.latency_us[name] / 1000, s.fell_behind) for s in samples]
            axes.plot(
                *([x for x, _, _ in points], [y for _, y, _ in points], style),
                **{"color": colour, "label": f"{variant}, {name}"},
            )
            for marker, wanted in (("o", False), ("x", True)):
                marked = [(x, y) for x, y, fell_behind in points if fell_behind is wanted]
                axes.plot([x for x, _ in marked], [y for _, y in marked], marker, color=colour)
    if any(s.fell_behind for s in curve):
        axes.plot([], [], "x", color="black", label="fell behind what was offered")
    axes.set_xlabel("payments a second that were begun, open loop")
    axes.set_ylabel("latency from the intended start, ms")
    axes.set_yscale("log")
    _legend_beside(figure)
    return _save(figure, path)


def _draw_percentiles(curve: list[Sample], path: Path) -> Path:
    """A line a rate, the darker the higher; a style a way of paying."""
    figure, axes = _canvas()
    for style, variant in zip(_LINE_STYLES, sorted({s.variant for s in curve}), strict=False):
        samples = [s for s in curve if s.variant == variant]
        for number, sample in enumerate(samples, 1):
            latencies_ms = [sample.latency_us[name] / 1000 for name in _PERCENTILES]
            label = f"{variant}, {sample.offered_rate:,.0f}/s{', fell behind' if sample.fell_behind else ''}"
            colour = colormaps["viridis_r"](0.1 + 0.9 * number / len(samples))
            axes.plot(_PERCENTILES, latencies_ms, style, marker="o", color=colour, label=label)
    axes.set_ylabel("latency from the intended start, ms")
    axes.set_yscale("log")
    _legend_beside(figure)
    return _save(figure, path)


def _draw_stages(stages: dict[str, StageProfile], path: Path) -> Path:
    """One bar a program and way of paying, its stages side by side."""
    bars = {f"{program}\n{name}": p.stages_us for name, s in stages.items() for program, p in s.programs.items()}
    left = dict.fromkeys(bars, 0.0)
    figure, axes = _canvas()
    used = [stage for stage in MEANINGS if any(stages_us.get(stage) for stages_us in bars.values())]
    # The dark ones first, then the light ones, so that neighbours differ.
    colours = [*_COLOURS[::2], *_COLOURS[1::2]]
    for number, stage in enumerate(used):
        widths = [stages_us.get(stage, 0.0) for stages_us in bars.values()]
        colour = colours[number % len(colours)]
        axes.barh(list(bars), widths, left=list(left.values()), label=stage, color=colour, edgecolor="white", lw=0.3)
        left = {label: left[label] + width for label, width in zip(bars, widths, strict=True)}
    axes.invert_yaxis()  # the first on top, as in the table
    axes.set_xlabel("microseconds of processor time a payment")
    _legend_beside(figure)
    return _save(figure, path)


def _draw_growth(growth: Growth, path: Path) -> Path:
    figure, axes = _canvas()
    axes.plot([x for x, _ in growth.points], [y for _, y in growth.points], marker="o")
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    axes.set_xlabel(growth.x_label)
    axes.set_ylabel(growth.y_label)
    axes.set_title(f"{growth.name}\n{growth.trend}" if growth.trend else growth.name)
    return _save(figure, path)


def _canvas() -> tuple[Any, Any]:
    figure = Figure(figsize=_SIZE_INCHES, layout="constrained")
    return figure, figure.subplots()


def _legend_beside(figure: Any) -> None:
    figure.legend(loc="outside right upper", fontsize="small", handlelength=3.5)


def _save(figure: Any, path: Path) -> Path:
    figure.savefig(path)
    return path
