"""Results as pictures (SVG): rates, the throughput-latency curve, latency percentiles, stages, growth."""

from pathlib import Path
from typing import Any, Final

from matplotlib.figure import Figure

from paygate.bench.results import PAYGATE, SEARCH_ROUND, Growth, Results, Sample, best_client_count, median_rate, of
from paygate.bench.stages import MEANINGS, StageProfile

_SIZE_INCHES: Final = (8.0, 4.5)
_PERCENTILES: Final = ("p50", "p90", "p99", "p99.9", "max")


def draw(results: Results, directory: Path) -> list[Path]:
    """Draw what there are results for; gives the files. Raises OSError."""
    directory.mkdir(parents=True, exist_ok=True)
    drawn = []
    if any(s.offered_rate is None for s in results.samples):
        drawn.append(_draw_rates(results, directory / "rates.svg"))
    curve = [s for s in results.samples if s.offered_rate is not None]
    if curve:
        drawn.append(_draw_curve(curve, directory / "throughput-latency.svg"))
        drawn.append(_draw_percentiles(curve, directory / "percentiles.svg"))
    if results.stages:
        drawn.append(_draw_stages(results.stages, directory / "stages.svg"))
    for number, growth in enumerate(results.growth, 1):
        drawn.append(_draw_growth(growth, directory / f"growth-{number}.svg"))
    return drawn


def _draw_rates(results: Results, path: Path) -> Path:
    """One bar a subject: ours at each client count, each peer at its best."""
    bars: list[tuple[str, float]] = []
    for variant in sorted({s.variant for s in of(results.samples, PAYGATE)}):
        for client_count in sorted({s.client_count for s in of(results.samples, PAYGATE, variant=variant)}):
            rate = median_rate(of(results.samples, PAYGATE, client_count, variant))
            bars.append((f"paygate, {variant}, {client_count} connections", rate))
    for peer in sorted({s.subject for s in results.samples} - {PAYGATE}):
        best = best_client_count(results.samples, peer)
        bars.append((f"{peer}, {best} clients", median_rate(of(results.samples, peer, best))))
    figure, axes = _canvas()
    labels, rates = zip(*reversed(bars), strict=True)
    colours = ["tab:blue" if label.startswith(PAYGATE) else "tab:grey" for label in labels]
    axes.barh(labels, rates, color=colours)
    axes.set_xlabel("per second, closed loop, median")
    return _save(figure, path)


def _draw_curve(curve: list[Sample], path: Path) -> Path:
    figure, axes = _canvas()
    for variant in sorted({s.variant for s in curve}):
        samples = sorted((s for s in curve if s.variant == variant), key=lambda s: s.rate)
        for name, style in (("p50", "-"), ("p99", "--")):
            latencies_ms = [s.latency_us[name] / 1000 for s in samples]
            axes.plot([s.rate for s in samples], latencies_ms, style, marker="o", label=f"{variant}, {name}")
    axes.set_xlabel("payments a second, open loop")
    axes.set_ylabel("latency from the intended start, ms")
    axes.set_yscale("log")
    axes.legend()
    return _save(figure, path)


def _draw_percentiles(curve: list[Sample], path: Path) -> Path:
    figure, axes = _canvas()
    for sample in sorted(curve, key=lambda s: (s.variant, s.offered_rate or 0)):
        if sample.round_number == SEARCH_ROUND:
            latencies_ms = [sample.latency_us[name] / 1000 for name in _PERCENTILES]
            axes.plot(_PERCENTILES, latencies_ms, marker="o", label=f"{sample.variant}, {sample.offered_rate:,.0f}/s")
    axes.set_ylabel("latency from the intended start, ms")
    axes.set_yscale("log")
    axes.legend(fontsize="x-small")
    return _save(figure, path)


def _draw_stages(stages: dict[str, StageProfile], path: Path) -> Path:
    """One bar a program and way of paying, its stages side by side."""
    bars = {f"{program}\n{name}": p.stages_us for name, s in stages.items() for program, p in s.programs.items()}
    left = dict.fromkeys(bars, 0.0)
    figure, axes = _canvas()
    for stage in MEANINGS:
        shown = [label for label, stages_us in bars.items() if stages_us.get(stage)]
        if shown:
            widths = [bars[label][stage] for label in shown]
            axes.barh(shown, widths, left=[left[label] for label in shown], label=stage)
            left |= {label: left[label] + width for label, width in zip(shown, widths, strict=True)}
    axes.set_xlabel("microseconds of processor time a payment")
    axes.legend(fontsize="x-small", ncols=3)
    return _save(figure, path)


def _draw_growth(growth: Growth, path: Path) -> Path:
    figure, axes = _canvas()
    axes.plot([x for x, _ in growth.points], [y for _, y in growth.points], marker="o")
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    axes.set_xlabel(growth.x_label)
    axes.set_ylabel(growth.y_label)
    axes.set_title(growth.name)
    return _save(figure, path)


def _canvas() -> tuple[Any, Any]:
    figure = Figure(figsize=_SIZE_INCHES, layout="constrained")
    return figure, figure.subplots()


def _save(figure: Any, path: Path) -> Path:
    figure.savefig(path)
    return path
