"""Plot of quality against cost: the index at each of its query settings beside the exact scan."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lshbench.plots.style import REFERENCE, RUN, SCREEN, Medium, caption, dress, figure_for, legend_below, medium_of
from lshbench.run_folder import Run

ROWS = ("mAP", "P@10", "recall@10/cosine")
NAMES = {"recall@10/cosine": "recall@10 of exact cosine"}

TICKS = tuple(step * 10.0**e for e in range(-9, 10) for step in (1, 2, 5))
FINE_TICKS = tuple(step * 10.0**e for e in range(-9, 10) for step in (1, 1.5, 2, 3, 4, 6, 8))
LEAST_RANGE = 15.0
"""Ratio of an axis' ends, so that a power of ten is in it."""


def tradeoff(run: Run, medium: Medium = SCREEN) -> Figure | None:
    """Draw mAP, P@10 and recall against the share of the gallery compared, throughput and, where it varies, memory.

    Settings that no other one beats in both directions are joined: the Pareto front. An index that was searched
    with one setting has no trade-off, and no plot.
    """
    columns = run.tradeoff()
    if len(columns["mAP"]) < 2:
        return None
    exact = _exact(run)
    rows = [name for name in ROWS if any(value is not None for value in columns[name])] or ["mAP"]
    key = _key(run, columns, bool(exact), medium.scale)
    lines = -(-len(key) // 2)
    height = 2.4 * medium.below + medium.panel_height * len(rows) + medium.legend_row * lines
    costs: list[tuple[str, Sequence[float], bool, float | None, Callable[[float], str]]] = [
        ("share of the gallery compared", columns["candidates_fraction"], True, 1.0, share_text),
        ("queries a second, with encoding", columns["qps_with_encoding"], False,
         exact.get("qps"), number_text),
    ]  # fmt: skip
    if len(set(columns["bytes_per_item"])) > 1:
        costs.append(("bytes an item", columns["bytes_per_item"], True, None, number_text))
    width = 1.1 + medium.panel_width * len(costs) if medium.panel_width else medium.double
    figure = figure_for(
        run, "Quality against cost", medium=medium, width=width, height=height, captions=True, legend_rows=lines
    )
    spaces = {"wspace": 0.1, "hspace": 0.28}
    grid = figure.subplots(len(rows), len(costs), sharex="col", sharey="row", squeeze=False, gridspec_kw=spaces)
    for row, name in enumerate(rows):
        values = [0.0 if value is None else value for value in columns[name]]
        for column, (label, x, cheap, scan, text) in enumerate(costs):
            axes = grid[row, column]
            _draw(axes, x, values, cheap, scan, exact.get(name))
            log_axis(axes, [*x, *([] if scan is None or not exact else [scan])], text, 1.0 if column == 0 else None)
            dress(axes, x=label if row == len(rows) - 1 else "", y="mean over queries" if column == 0 else "")
        _show_range(grid[row, 0], [*values, *([exact[name]] if name in exact else [])])
        known = exact.get(name) is not None and name not in NAMES
        beside = f", exact cosine {exact[name]:.3f}" if known else ""
        caption(grid[row, 0], f"{NAMES.get(name, name)}: {values[-1]:.3f}{beside}")
    legend_below(figure, key, 2)
    return figure


def pareto_front(costs: Sequence[float], values: Sequence[float]) -> list[int]:
    """Return which points no other one beats in both cost and value, cheapest first."""
    front: list[int] = []
    for i in sorted(range(len(costs)), key=lambda i: (costs[i], -values[i])):
        if not front or values[i] > values[front[-1]]:
            front.append(i)
    return front


def _exact(run: Run) -> dict[str, float]:
    """Return the exact scan's metrics, and its ``qps`` where it was timed."""
    cosine = run.metrics.reference.cosine
    if cosine is None:
        return {}
    known = {name: value for name in ("mAP", "P@10") if (value := cosine[name]) is not None}
    batch = run.metrics.search.latency_ms.get("exact_batch")
    return {**known, "recall@10/cosine": 1.0} | ({"qps": 1e3 / batch} if batch else {})


def _draw(
    axes: Axes, x: Sequence[float], values: Sequence[float], cheap: bool, scan: float | None, exact: float | None
) -> None:
    """Draw all settings, the front through the best of them, and the exact scan.

    Args:
        cheap: whether less of ``x`` is better.
        scan: the exact scan's ``x``.
        exact: its value.
    """
    scale = medium_of(axes).scale
    shown = [i for i in range(len(x)) if x[i] > 0]
    best = pareto_front([x[i] if cheap else -x[i] for i in shown], [values[i] for i in shown])
    front = [shown[i] for i in best]
    best_pairs = {(x[i], values[i]) for i in front}
    others = [i for i in shown if (x[i], values[i]) not in best_pairs]  # no hollow dot on one of the front
    dots: dict[str, Any] = {"color": RUN, "marker": "o", "markersize": 5 * scale}
    alone: dict[str, Any] = {"linestyle": "none", "clip_on": False}
    axes.plot([x[i] for i in front], [values[i] for i in front], linewidth=1.8 * scale, **dots)
    axes.plot([x[i] for i in others], [values[i] for i in others], linestyle="none", markerfacecolor="white", **dots)
    last = len(x) - 1
    if last in shown:
        axes.plot([x[last]], [values[last]], color=RUN, marker="D", markersize=8 * scale, **alone)
    if exact is not None:
        axes.axhline(exact, color=REFERENCE, linewidth=1.2 * scale, linestyle="--")
        if scan is not None:
            axes.plot([scan], [exact], color=REFERENCE, marker="s", markersize=7 * scale, **alone)


def _show_range(axes: Axes, shares: Sequence[float]) -> None:
    """Set a vertical axis of shares to the part of 0 to 1 that they take up, a tenth of it at least."""
    low, high = min(shares), max(shares)
    room = max(0.1 - (high - low), 0) / 2 + 0.1 * (high - low) + 0.01
    axes.set_ylim(max(0, low - room), min(1.04, high + room))


def log_axis(
    axes: Axes,
    values: Sequence[float],
    text: Callable[[float], str],
    most: float | None,
    least_range: float = LEAST_RANGE,
) -> None:
    """Set a log axis' limits and ticks for some values, and for the greatest possible one if there is one."""
    known = [value for value in values if value > 0] or [1.0]
    low, high = min(known) / 1.5, max(known) * 1.5
    if most is not None:
        high = 1.5 * most
        low = min(low, high / least_range)
    if high / low < least_range:
        wider = (least_range * low / high) ** 0.5
        low, high = low / wider, high * wider
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    end = high if most is None else most
    ticks = [tick for tick in TICKS if low <= tick <= end]
    if len(ticks) > 5:
        ticks = [tick for tick in TICKS[::3] if low <= tick <= end]
    elif len(ticks) < 3:
        ticks = [tick for tick in FINE_TICKS if low <= tick <= end]
    # Labels of neighbouring ticks need room.
    ticks = ticks[:: -(-len(ticks) // 5)]
    axes.set_xticks(ticks, [text(tick) for tick in ticks])
    axes.minorticks_off()


def share_text(value: float) -> str:
    return f"{100 * value:g} %"


def number_text(value: float) -> str:
    return f"{value:,.0f}" if value >= 1 and value == int(value) else f"{value:g}"


def _key(run: Run, columns: dict[str, list[Any]], exact: bool, scale: float) -> list[Line2D]:
    """Return the legend's entries: what the marks mean, and which setting the run's figures are of."""
    names = list(columns)[: list(columns).index("mAP")]
    setting = ", ".join(f"{name}={columns[name][-1]}" for name in names)
    sizes = sorted({round(size, 1) for size in columns["bytes_per_item"]})
    size = f"{sizes[0]:g}" + (f" to {sizes[-1]:g}" if len(sizes) > 1 else "") + " bytes an item"
    name = run.metrics.searched if run.metrics.features_alone else run.metrics.search.index
    label = f"{name}{': ' + setting if setting else ''}, {size}"
    style: dict[str, Any] = {"color": RUN, "markersize": 6 * scale, "linewidth": 1.8 * scale}
    key = [Line2D([], [], marker="D", label=label, **style | {"markersize": 8 * scale, "linestyle": "none"})]
    if len(columns["mAP"]) > 1:
        front = "Pareto front: settings that no other one beats"
        hollow = style | {"linestyle": "none", "markerfacecolor": "white"}
        key += [
            Line2D([], [], marker="o", label=front, **style),
            Line2D([], [], marker="o", label="other settings", **hollow),
        ]
    if exact:
        scan = style | {"color": REFERENCE, "linestyle": "--"}
        key.append(Line2D([], [], marker="s", label="exact cosine: all items", **scan))
    return key
