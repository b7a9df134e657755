"""Summary of a run, printed at its end."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lshbench.run_folder import Run, RunMetrics
from lshbench.run_folder.contents import TRADEOFF
from lshbench.run_folder.metrics import SHARED_LABEL, ProtocolMetrics, SearchMetrics

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

SHOWN = ("mAP", "P@10", "P@50")

NOTHING = 0.0005
"""Loss of a measure that is not worth blaming anything for."""


def print_summary(run: Run, console: Console | None = None) -> None:
    """Print a run's figures beside exact cosine and what labels give without a code, its speed, and where it is.

    Args:
        run: finished.
        console: where to; standard output by default.
    """
    from rich.console import Console
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    console = console or Console()
    metrics = run.metrics
    dataset, method, protocol = metrics.dataset, metrics.method, metrics.protocol
    source = f" ({dataset.backbone}, {dataset.dim} dims)" if dataset.backbone else ""
    trained = "trained with labels" if method.supervision == "labels" else "no labels used"
    coded = metrics.codes.entropy_bits is not None or metrics.ranking == "asymmetric" or bool(metrics.memory.code_bytes)
    what = f"{method.name}, {method.bits} bits" if coded else method.name
    if metrics.features_alone:
        what, trained = metrics.searched, "no method"
    console.print()
    console.print(Text.assemble((what, "bold"), f" ({trained}), ranked by {metrics.ranking} distance"))
    console.print(
        f"{dataset.name}{source}, protocol {protocol.name}: {dataset.queries:,} queries, "
        f"{dataset.gallery:,} in the gallery, {f'{dataset.classes:,} classes' if dataset.classes else 'no labels'}",
        highlight=False,
    )
    if relevance := _relevance(metrics):
        console.print(relevance, highlight=False)
    console.print()
    console.print(Padding(_table(metrics), (0, 0, 0, 2), expand=False))
    points = run.tradeoff() if run.has(TRADEOFF) else {}
    if len(points.get("mAP", ())) > 1:
        console.print()
        console.print(Padding(_points_table(points, metrics), (0, 0, 0, 2), expand=False))
    if dataset.queries_without_relevant:
        unanswered = dataset.unanswered or f"{dataset.queries_without_relevant:,} queries have nothing to find"
        console.print(Text(f"\nWARNING: {unanswered}; each counts as 0.", style="yellow"))
    if protocol.leak:
        console.print(f"\nLEAK: {_leak(protocol)}: these figures are too good.", style="bold red", highlight=False)
    console.print()
    lines = Table.grid(padding=(0, 2, 0, 0))
    lines.add_column(width=6, style="bold")
    lines.add_column(overflow="fold")
    for name, text in _lines(metrics):
        lines.add_row(name, Text(text))
    console.print(Padding(lines, (0, 0, 0, 2), expand=False))
    # Never wrapped, so that it can be copied.
    console.print(
        Text.assemble("  ", (f"{'folder':<8}", "bold"), _shown_path(run.path)), soft_wrap=True, highlight=False
    )


def print_line(run: Run, console: Console) -> None:
    """Print a run's headline figures and its folder in one line."""
    from rich.text import Text

    metrics = run.metrics
    shown: dict[str, float | None] = {name: metrics.metrics[name] for name in SHOWN}
    if metrics.published is not None:
        shown = {str(metrics.protocol.definition): metrics.published, **shown}
    figures = ", ".join(f"{name} {_figure(value)}" for name, value in shown.items())
    what = f"{metrics.searched} {metrics.method.bits} bits, seed {metrics.seed}: {figures}"
    console.print(Text(f"{what}  {_shown_path(run.path)}"), soft_wrap=True)


def _shown_path(path: Path) -> str:
    """Return a path as one would type it here."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _table(metrics: RunMetrics) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    cosine = metrics.reference.cosine
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, safe_box=True)
    table.add_column("metric")
    table.add_column(metrics.searched, justify="right", style="bold")
    table.add_column("by order of ties", justify="right")
    if cosine is not None:
        table.add_column("exact cosine", justify="right")
        table.add_column("difference", justify="right")
    if (published := metrics.published) is not None:
        table.add_row(metrics.protocol.definition, _figure(published), *[""] * (len(table.columns) - 2))
    for name in SHOWN:
        value, ties = metrics.metrics[name], metrics.ties.get(name)
        row = [name, _figure(value), ""]
        if ties is not None:
            row[2] = f"{_figure(ties.pessimistic)} to {_figure(ties.optimistic)}"
        if cosine is not None:
            exact = cosine[name]
            row.append(_figure(exact))
            row.append("-" if value is None or exact is None else f"{value - exact:+.4f}")
        table.add_row(*row)
    return table


POINTS = {
    "mAP": ("mAP", ".4f"),
    "P@10": ("P@10", ".4f"),
    "recall@10/cosine": ("recall@10", ".3f"),
    "candidates_mean": ("compared", ",.0f"),
    "qps_with_encoding": ("queries/s", ",.0f"),
    "latency_ms/with_encoding_p50": ("ms", ".3g"),
    "bytes_per_item": ("bytes", ",.4g"),
}
"""Columns of the table of query settings, of those that are known: heading and format."""


def _points_table(points: dict[str, list[Any]], metrics: RunMetrics) -> Table:
    """Return a table of all query settings that were measured, and of the exact scan that they are compared with.

    Times are with encoding, which the exact scan does without; bytes are an item's.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, safe_box=True, padding=(0, 1, 0, 0))
    settings = list(points)[: list(points).index("mAP")]
    shown = {key: made for key, made in POINTS.items() if any(value is not None for value in points.get(key, ()))}
    for heading in (*settings, *(heading for heading, _ in shown.values())):
        table.add_column(heading, justify="right")
    for row in range(len(points["mAP"])):
        cells = [str(points[name][row]) for name in settings]
        for key, (_, form) in shown.items():
            value = points[key][row]
            cells.append("-" if value is None else format(value, form))
        table.add_row(*cells)
    if exact := _exact_point(metrics):
        cells = [format(exact[key], form) if key in exact else "-" for key, (_, form) in shown.items()]
        table.add_row("exact scan", *[""] * (len(settings) - 1), *cells)
    return table


def _exact_point(metrics: RunMetrics) -> dict[str, float]:
    """Return what is known of the exact scan, by the columns of query settings; nothing where it was not timed."""
    cosine, latency = metrics.reference.cosine, metrics.search.latency_ms
    batch, single = latency.get("exact_batch"), latency.get("exact_p50")
    if cosine is None or not batch or not single:
        return {}
    known = {name: value for name in ("mAP", "P@10") if (value := cosine[name]) is not None}
    costs = {"qps_with_encoding": 1e3 / batch, "latency_ms/with_encoding_p50": single}
    return {**known, "recall@10/cosine": 1.0, "candidates_mean": metrics.dataset.gallery, **costs}


def _lines(metrics: RunMetrics) -> list[tuple[str, str]]:
    search, memory, seconds = metrics.search, metrics.memory, metrics.time_s
    speed = f"{search.index}: {_speed(search)}" if search.qps is not None else search.index
    if search.candidates_fraction < 1:
        compared = f"{search.candidates_mean:,.0f} compared of {metrics.dataset.gallery:,}"
        speed += f", {compared} ({search.candidates_fraction:.2%})"
        if search.recall_at_10 is not None:
            speed += f", recall@10 {search.recall_at_10:.3f}"
    if search.queries_without_candidates:
        speed += f", {search.queries_without_candidates:,} queries without candidates"
    spans = [f"{name} {spent:.1f}" for name, spent in seconds.items() if name != "total" and (spent or 0) >= 0.05]
    time = f"{seconds['total']:.1f} s" + (f" ({', '.join(spans)})" if spans else "")
    size = f"{memory.bytes_per_item:,.4g} bytes an item"
    parts = {"code": memory.code_bytes, "index": memory.index_bytes, "features": memory.feature_bytes}
    if None not in parts.values():
        each = {name: f"{name} {of / metrics.dataset.gallery:,.4g}" for name, of in parts.items() if of}
        if memory.fixed_bytes:
            each["index"] += f" ({memory.fixed_bytes / metrics.dataset.gallery:,.4g} in codebooks and centroids)"
        size += f": {', '.join(each.values())}"
    if memory.peak_rss_bytes is not None:
        size = f"{_size(memory.peak_rss_bytes)} at most; {size}"
    lost = _loss(metrics)
    lines = [("search", speed), ("time", time), ("memory", size)]
    if lost:
        lines.insert(0, ("loss", lost))
    if (found := search.recall_at_10_codes) is not None:
        lines.insert(1 if lost else 0, ("ties", _ties_of_codes(found)))
    if labels := _labels(metrics):
        lines.insert(0, ("labels", labels))
    if busy := metrics.environment.get("busy"):
        lines.append(("BUSY", f"{busy}: other work slowed the machine down, and times are too long"))
    return lines


def _speed(search: SearchMetrics) -> str:
    """Return queries a second in batches and the latency of single ones, with encoding first where it was timed."""
    batch, p95 = search.latency_ms.get("with_encoding_batch"), search.latency_ms.get("with_encoding_p95")
    alone = [f"{search.qps:,.0f}/s"] if batch else [f"{search.qps:,.0f} queries/s"]
    if (own := search.latency_ms["p95"]) is not None:
        alone.append(f"{own:.3g} ms" + (" for 95 % of single queries" if p95 is None else ""))
    if not batch or p95 is None:
        return ", ".join(alone)
    return (
        f"{1e3 / batch:,.0f} queries/s, {p95:.3g} ms for 95 % of single queries, with encoding "
        f"(without: {', '.join(alone)})"
    )


def _loss(metrics: RunMetrics) -> str:
    """Return what code and index each add to mAP and P@10, and which of them loses most, a measure a line."""
    lines = []
    for name in ("mAP", "P@10"):
        known = {} if metrics.loss is None else metrics.loss.changes(name)
        changes = {part: change for part, change in known.items() if change is not None}
        if not changes:
            continue
        losing = [part for part, change in changes.items() if change <= -NOTHING]
        worst = min(changes, key=lambda part: changes[part])
        verdict = f"{'most is ' * (len(losing) > 1)}lost by the {worst}" if losing else "nothing is lost"
        lines.append(f"{name:<5}{', '.join(f'{part} {change:+.4f}' for part, change in changes.items())}: {verdict}")
    return "\n".join(lines)


def _ties_of_codes(found: Mapping[str, float | None]) -> str:
    """Return how many of the first ten by Hamming distance an index found, by item and by distance."""
    told = (
        f"of the first 10 by Hamming distance, {found['item']:.3f} found by item, {found['distance']:.3f} by distance"
    )
    if found["rescored_item"] is not None:
        told += f"; rescored {found['rescored_item']:.3f} and {found['rescored_distance']:.3f}"
    return told


def _relevance(metrics: RunMetrics) -> str:
    """Return what is relevant, where it is not simply a label that each item has one of, and who is left out."""
    relevance, protocol = metrics.relevance, metrics.protocol
    if relevance is None:
        return ""
    said = [f"relevant: {relevance.rule}, {relevance.mean:,.1f} a query (chance level {relevance.chance:.4f})"]
    if protocol.leave_one_out:
        also = f", and {protocol.query_train_overlap:,} are in training" if protocol.query_train_overlap else ""
        if protocol.exact_duplicates:
            also += f"; {protocol.exact_duplicates:,} have exact copies, which stay in"
        said.append(f"{protocol.query_gallery_overlap:,} queries are left out of their own rankings{also}")
    junk = relevance.left_out - (protocol.query_gallery_overlap if protocol.leave_one_out else 0)
    if junk > 0:
        said.append(f"{junk:,} junk pairs count neither way")
    plain = relevance.rule == SHARED_LABEL
    return "; ".join(said[plain:])


def _labels(metrics: RunMetrics) -> str:
    """Return what labels give without a code: the figures of the classifier beside a run; nothing without one."""
    classifier = metrics.reference.classifier
    if classifier is None:
        return ""
    ranked, trivial = (
        ", ".join(f"{name} {_figure(figures[name])}" for name in SHOWN)
        for figures in (classifier.probabilities, classifier.predicted_class)
    )
    right = f"{classifier.accuracy:.1%} of the queries" if classifier.accuracy else "no query"
    lines = [f"classifier, no code:     {ranked}", f"predicted class as code: {trivial}", f"it is right for {right}"]
    value, best = metrics.metrics["mAP"], classifier.probabilities["mAP"]
    if value is not None and best is not None:
        lines[-1] += f"; {metrics.searched} has {value - best:+.4f} mAP"
    return "\n".join(lines)


def _leak(protocol: ProtocolMetrics) -> str:
    """Return which queries are in the gallery or in training: the items themselves, and exact copies of them."""
    in_gallery, in_train = protocol.query_gallery_overlap, protocol.query_train_overlap
    leak = f"{in_gallery:,} queries are in the gallery and {in_train:,} in training"
    copies, copies_train = protocol.exact_duplicates, protocol.exact_duplicates_train
    if copies or copies_train:
        leak += f", {copies:,} have an exact copy in the gallery and {copies_train:,} in training"
    return leak


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"
