"""What a run says at its end."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

SHOWN = ("mAP", "P@10", "P@50")


def print_summary(metrics: Mapping[str, Any], folder: Path, console: Console | None = None) -> None:
    """Print a run's figures beside exact cosine ranking, its speed, and where its files are.

    Args:
        metrics: as in ``metrics.json``.
        folder: the run's folder.
        console: where to; standard output by default.
    """
    from rich.console import Console
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    console = console or Console()
    dataset, method, protocol = metrics["dataset"], metrics["method"], metrics["protocol"]
    source = f" ({dataset['backbone']}, {dataset['dim']} dims)" if dataset["backbone"] else ""
    trained = "trained with labels" if method["supervision"] == "labels" else "no labels used"
    clusters = metrics["codes"]["entropy_bits"] is None
    what = method["name"] if clusters else f"{method['name']}, {method['bits']} bits"
    if _ranks_features(metrics):
        what, trained = _searched(metrics), f"{method['name']} has no part in it"
    console.print()
    console.print(Text.assemble((what, "bold"), f" ({trained}), ranked by {metrics['ranking']} distance"))
    console.print(
        f"{dataset['name']}{source}, protocol {protocol['name']}: {dataset['queries']:,} queries, "
        f"{dataset['gallery']:,} in the gallery, {dataset['classes']:,} classes",
        highlight=False,
    )
    console.print()
    console.print(Padding(_table(metrics), (0, 0, 0, 2), expand=False))
    if protocol.get("leak"):
        console.print(f"\nLEAK: {_leak(protocol)}: these figures are too good.", style="bold red", highlight=False)
    console.print()
    lines = Table.grid(padding=(0, 2, 0, 0))
    lines.add_column(width=6, style="bold")
    lines.add_column(overflow="fold")
    for name, text in _lines(metrics):
        lines.add_row(name, Text(text))
    console.print(Padding(lines, (0, 0, 0, 2), expand=False))
    # Never wrapped, so that it can be copied.
    where = Text.assemble("  ", (f"{'folder':<8}", "bold"), str(folder))
    console.print(where, soft_wrap=True, highlight=False)


def _table(metrics: Mapping[str, Any]) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    cosine = metrics["reference"]["cosine"]
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, safe_box=True)
    table.add_column("metric")
    table.add_column(_searched(metrics), justify="right", style="bold")
    table.add_column("by order of ties", justify="right")
    if cosine is not None:
        table.add_column("exact cosine", justify="right")
        table.add_column("difference", justify="right")
    for name in SHOWN:
        value, ties = metrics["metrics"][name], metrics["ties"].get(name)
        row = [name, _figure(value), ""]
        if ties is not None:
            row[2] = f"{_figure(ties['pessimistic'])} to {_figure(ties['optimistic'])}"
        if cosine is not None:
            row.append(_figure(cosine[name]))
            known = value is not None and cosine[name] is not None
            row.append(f"{value - cosine[name]:+.4f}" if known else "-")
        table.add_row(*row)
    return table


def _ranks_features(metrics: Mapping[str, Any]) -> bool:
    """Whether the index read nothing of what the method gave; a run that does not say so did."""
    return metrics["search"].get("ranks") == "features"


def _searched(metrics: Mapping[str, Any]) -> str:
    """Return what the figures are those of."""
    return f"features by {metrics['search']['index']}" if _ranks_features(metrics) else metrics["method"]["name"]


def _lines(metrics: Mapping[str, Any]) -> list[tuple[str, str]]:
    search, memory, seconds = metrics["search"], metrics["memory"], metrics["time_s"]
    speed = search["index"]
    if search["qps"] is not None:
        speed += f": {search['qps']:,.0f} queries/s"
    if (p95 := search["latency_ms"]["p95"]) is not None:
        speed += f", {p95:.3g} ms for 95 % of single queries"
    if search["candidates_fraction"] < 1:
        compared = f"{search['candidates_mean']:,.0f} compared of {metrics['dataset']['gallery']:,}"
        speed += f", {compared} ({search['candidates_fraction']:.2%})"
        if search["recall@10"] is not None:
            speed += f", recall@10 {search['recall@10']:.3f}"
    if search["queries_without_candidates"]:
        speed += f", {search['queries_without_candidates']:,} queries without candidates"
    parts = [f"{name} {seconds[name]:.1f}" for name in seconds if name != "total" and (seconds[name] or 0) >= 0.05]
    time = f"{seconds['total']:.1f} s" + (f" ({', '.join(parts)})" if parts else "")
    size = f"index {_size(memory['index_bytes'])}, {memory['bytes_per_item']:.4g} bytes an item"
    if memory["peak_rss_bytes"] is not None:
        size = f"{_size(memory['peak_rss_bytes'])} at most; {size}"
    return [("search", speed), ("time", time), ("memory", size)]


def _leak(protocol: Mapping[str, Any]) -> str:
    """Return which queries were there before: the items themselves, and exact copies of them."""
    parts = [
        f"{protocol['query_gallery_overlap']:,} queries are in the gallery and "
        f"{protocol.get('query_train_overlap', 0):,} in training"
    ]
    copies = protocol.get("exact_duplicates", 0), protocol.get("exact_duplicates_train", 0)
    if any(copies):
        parts.append(f"{copies[0]:,} have an exact copy in the gallery and {copies[1]:,} in training")
    return ", ".join(parts)


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"
