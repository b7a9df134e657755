"""Queries and their first hits as pictures, from the small ones that runs keep: of one run, or of two side by side."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from lshbench.plots.style import (
    GRID,
    MUTED,
    OTHER_CLASS,
    SAME_CLASS,
    TEXT,
    Medium,
    data_name,
    drawing,
    head,
    searched_name,
    shortened,
    supervision_name,
)
from lshbench.report.queries import class_names, labels_text, several_labels
from lshbench.run_folder import Run
from lshbench.run_folder.contents import GALLERY_LABELS, PER_QUERY, THUMBNAILS
from lshbench.run_folder.thumbnails import read_thumbnails

HITS = 10
"""Of a query; half as many of each where two runs are side by side."""
ROWS = 8

Pictures = dict[tuple[str, int], bytes]


def queries_with_pictures(run: Run) -> list[int]:
    """Return the numbers of the queries of which a run keeps pictures."""
    if not (run.has(THUMBNAILS) and run.has(PER_QUERY) and run.has(GALLERY_LABELS)):
        return []
    return [number for side, number in read_thumbnails(run) if side == "query"]


def gallery(runs: Sequence[Run], queries: Sequence[int], medium: Medium) -> Figure | None:
    """Draw queries with the first hits of one run, or of two side by side; None without queries.

    Hits of the query's class are framed green, others red with a cross.

    Args:
        runs: one or two, which keep pictures of the queries.
        queries: numbers of items.
        medium: what it is for.
    """
    queries = queries[:ROWS]
    if not queries:
        return None
    hits = HITS // len(runs)
    gap, margin = 0.12, 0.13
    width = medium.double
    size = (width - 2 * margin - gap * len(runs)) / (1 + hits * len(runs))
    pitch = size + 2.9 * medium.tick / 72
    above = medium.above + 1.6 * medium.text / 72
    height = above + pitch * len(queries) + 0.06
    figure = drawing(medium, width, height)
    names = [f"{searched_name(run)} · {supervision_name(run)}".rstrip("· ") for run in runs]
    head(figure, "Queries and their first hits", data_name(runs[0]))
    axes = figure.add_axes((0, 0, 1, 1))
    room = int((hits * size) * 72 / (0.56 * medium.text))
    axes.set_axis_off()
    words: dict[str, Any] = {"fontsize": medium.text, "color": TEXT, "va": "bottom", "parse_math": False}
    axes.text(margin, above - 0.04, "query", **words)
    for place, (run, name) in enumerate(zip(runs, names, strict=True)):
        left = margin + size + gap + place * (hits * size + gap)
        axes.text(left, above - 0.04, shortened(f"{name}, nearest first", room), **words)
        _draw_run(axes, run, queries, left, above, size, pitch, hits, margin if place == 0 else None)
    # Every image has set the limits anew.
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    return figure


def _draw_run(
    axes: Axes,
    run: Run,
    queries: Sequence[int],
    left: float,
    top: float,
    size: float,
    pitch: float,
    hits: int,
    first: float | None,
) -> None:
    """Draw one run's hits of all queries, and the queries themselves at ``first``, if that is a place."""
    pictures, names = read_thumbnails(run), class_names(run)
    labels = run.array(GALLERY_LABELS)
    table = run.per_query(["query", "label", "first_hits", "first_distances"])
    rows = {query: row for row, query in enumerate(table["query"].to_pylist())}
    hamming = run.metrics.ranking == "hamming"
    for place, query in enumerate(queries):
        own = table.slice(rows[query], 1).to_pylist()[0]
        up = top + place * pitch
        if first is not None:
            _tile(axes, pictures.get(("query", query)), first, up, size, None, labels_text(own["label"], names), "")
        found = zip(own["first_hits"][:hits], own["first_distances"][:hits], strict=True)
        for number, (row, distance) in enumerate(found):
            label = np.flatnonzero(labels[row]).tolist() if labels.ndim == 2 else int(labels[row])
            right = bool(set(several_labels(label)) & set(several_labels(own["label"])))
            text = f"{distance:.0f}" if hamming else f"{distance:.3f}"
            picture = pictures.get(("gallery", row))
            _tile(axes, picture, left + number * size, up, size, right, labels_text(label, names), text)


def _tile(
    axes: Axes,
    picture: bytes | None,
    left: float,
    top: float,
    size: float,
    right: bool | None,
    label: str,
    distance: str,
) -> None:
    """Draw a picture with its frame, and below it its label and distance."""
    medium = axes.get_figure(root=True).medium  # type: ignore[union-attr]
    inner, edge = 0.9 * size, left + 0.05 * size
    colour = GRID if right is None else SAME_CLASS if right else OTHER_CLASS
    axes.add_patch(Rectangle((edge, top), inner, inner, facecolor=GRID, edgecolor=colour, linewidth=2 * medium.scale))
    if picture is not None:
        image = np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"))
        high, wide = (side / max(image.shape[:2]) * inner for side in image.shape[:2])
        x, y = edge + (inner - wide) / 2, top + (inner - high) / 2
        axes.imshow(image, extent=(x, x + wide, y + high, y), interpolation="nearest", aspect="auto", zorder=0.5)
        axes.patches[-1].set_facecolor("none")
    if right is False:
        axes.plot([edge + inner - 0.06], [top + 0.06], "X", color=OTHER_CLASS, markersize=6 * medium.scale,
                  markeredgecolor="white", markeredgewidth=medium.scale)  # fmt: skip
    words: dict[str, Any] = {"fontsize": 0.85 * medium.text, "va": "top", "parse_math": False}
    letters = max(4, int(size * 72 / (0.85 * medium.text * 0.56)))
    below = top + inner + 0.03
    axes.text(edge, below, shortened(label, letters), color=OTHER_CLASS if right is False else TEXT, **words)
    axes.text(edge, below + 1.15 * medium.text / 72, distance, color=MUTED, **words)
