"""Picture of queries and their first results."""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from PIL import Image, ImageDraw

from lshbench.plots.lettering import lettered
from lshbench.plots.style import GRID, MUTED, OTHER_CLASS, SAME_CLASS, TEXT, shortened
from lshbench.types import Features, Neighbors, is_unlabelled

TILE = 128
FRAME = 5
GAP = 12
CAPTION = 40
LABEL_WIDTH = TILE + FRAME
MARGIN = 24
QUERY_GAP = 34
HEADER = 92
BLANK = "#f3f4f6"
DRAWN, KEPT = 10, 16
"""Queries in the picture of a run, and those of which small pictures are kept for reports."""
THUMBNAIL = 48
SECONDS = 0.15
"""Time for the pictures that are kept for reports: a run should not notice it."""
PIXELATED = 16
"""Images up to this size are enlarged pixel by pixel: smoothing would invent most of what is seen."""


class Labelled(Protocol):
    """A split of a data set, which may name its classes."""

    class_names: Sequence[str] | None


class Pictures(Protocol):
    """A data set of pictures."""

    @property
    def gallery(self) -> Labelled: ...

    def image(self, item: int) -> Image.Image: ...


@dataclass(frozen=True)
class Result:
    """A result: its picture, label and distance, whether it shares a label with the query, and the items so near.

    The last two are None where they are not known.
    """

    image: Image.Image
    label: str
    distance: float
    relevant: bool | None
    tied: int | None = None


@dataclass(frozen=True)
class Row:
    """A query and its results, nearest first."""

    image: Image.Image
    label: str
    hits: list[Result]


def choose_queries(labels: np.ndarray, count: int) -> np.ndarray:
    """Return rows of queries spread over the classes: not the best ones, and the same ones every time.

    Classes are taken evenly spaced among those present, of each its first queries; an item of several labels
    counts for its first one.

    Args:
        labels: int64 ``(q,)``, or bool ``(q, classes)``; without any, queries are evenly spaced.
        count: how many at most.

    Returns:
        int64 ``(min(count, q),)``, in the order of their classes.
    """
    if is_unlabelled(labels):
        return np.arange(len(labels))[:: max(1, len(labels) // count)][:count]
    single = labels if labels.ndim == 1 else np.argmax(labels, axis=1)
    classes = np.unique(single)
    if len(classes) > count:
        classes = classes[np.linspace(0, len(classes) - 1, count).round().astype(int)]
    members = [np.flatnonzero(single == label) for label in classes]
    chosen: list[tuple[int, int]] = []
    turn = 0
    while len(chosen) < min(count, sum(map(len, members))):
        for place, rows in enumerate(members):
            if turn < len(rows) and len(chosen) < count:
                chosen.append((place, int(rows[turn])))
        turn += 1
    return np.array([row for _, row in sorted(chosen)], np.int64)


def shown_queries(labels: np.ndarray) -> np.ndarray:
    """Return rows of the queries whose hits are shown as pictures, int64, ascending; labels as above."""
    return np.union1d(choose_queries(labels, DRAWN), choose_queries(labels, KEPT))


def chosen_rows(
    dataset: Pictures,
    gallery: Features,
    queries: Features,
    neighbors: Neighbors,
    right: np.ndarray,
    *,
    count: int = DRAWN,
) -> list[Row]:
    """Return a few queries with their first hits, read from the data set; ``right`` says which of them are relevant."""
    names = dataset.gallery.class_names
    rows = []
    for query in choose_queries(queries.y, count):
        label = queries.y[query]
        found = []
        hits = right.shape[1]
        results = zip(neighbors.ids[query, :hits], neighbors.distances[query, :hits], strict=True)
        for place, (row, distance) in enumerate(results):
            if row < 0:
                break
            other = gallery.y[row]
            image = dataset.image(int(gallery.ids[row]))
            tied = None if neighbors.tied is None else int(neighbors.tied[query, place])
            found.append(Result(image, label_text(other, names), float(distance), bool(right[query, place]), tied))
        rows.append(Row(dataset.image(int(queries.ids[query])), label_text(label, names), found))
    return rows


def thumbnails(
    dataset: Pictures, gallery: Features, queries: Features, neighbors: Neighbors, *, count: int = KEPT, hits: int = 10
) -> dict[tuple[str, int], bytes]:
    """Return JPEG pictures, at most 48 pixels wide and high, of a few queries and their first hits.

    A query comes with all its hits; no further one is begun after :data:`SECONDS`.

    Returns:
        By ``("query", item number)`` and ``("gallery", row)``.
    """
    started = time.perf_counter()
    found: dict[tuple[str, int], bytes] = {}
    for query in choose_queries(queries.y, count):
        if time.perf_counter() - started > SECONDS:
            break
        wanted = {("query", int(queries.ids[query])): int(queries.ids[query])}
        rows = [int(row) for row in neighbors.ids[query, :hits] if row >= 0]
        wanted |= {("gallery", row): int(gallery.ids[row]) for row in rows}
        for key, item in wanted.items():
            if key not in found:
                found[key] = _jpeg(dataset.image(item))
    return found


def _jpeg(image: Image.Image) -> bytes:
    picture = image.convert("RGB")
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    stream = io.BytesIO()
    picture.save(stream, format="JPEG", quality=80)
    return stream.getvalue()


def label_text(label: np.ndarray | np.integer, names: Sequence[str] | None) -> str:
    """Return the name of a label, or the names of several."""
    numbers = np.flatnonzero(label).tolist() if np.ndim(label) else [int(label)]
    return ", ".join(names[i] if names is not None else f"class {i}" for i in numbers) or "no label"


def retrieval(rows: Sequence[Row], *, title: str, ranking: str) -> Image.Image:
    """Draw each query and its hits in a row.

    The query stands apart at the left; relevant hits are framed green, others red with a cross in the
    corner, and those whose relevance is not known grey.  Label and distance stand below each picture.

    Args:
        rows: at least one.
        title: what the run is.
        ranking: ``hamming``, ``cosine`` or ``asymmetric``, the kind of distance.
    """
    columns = max(1, *(len(row.hits) for row in rows))
    cell = TILE + 2 * FRAME
    first = MARGIN + cell + QUERY_GAP
    width = first + columns * (cell + GAP) - GAP + MARGIN
    # A header line is as wide as some pictures, whatever the number of hits.
    width = max(width, 760)
    pitch = cell + CAPTION + GAP
    canvas = Image.new("RGB", (width, HEADER + len(rows) * pitch - GAP + MARGIN), "white")
    draw = ImageDraw.Draw(canvas)

    _text(draw, (MARGIN, 14), "Queries and their first hits", 20, TEXT, width - 2 * MARGIN, bold=True)
    _text(draw, (MARGIN, 42), title, 14, MUTED, width - 2 * MARGIN - 330)
    known = any(hit.relevant is not None for row in rows for hit in row.hits)
    if known:
        _key(draw, width - MARGIN, 44)
    distances = {"hamming": "Hamming distance in bits", "asymmetric": "asymmetric distance"}
    distance = distances.get(ranking, "distance: 1 - cosine")
    _text(draw, (MARGIN + FRAME, HEADER - 22), "query", 13, TEXT, cell, bold=True)
    _text(draw, (first + FRAME, HEADER - 22), f"nearest first, with label and {distance}", 13, TEXT, width - first)
    line = first - QUERY_GAP // 2
    draw.line([(line, HEADER - 24), (line, canvas.height - MARGIN)], fill="#9ca3af", width=1)

    for i, row in enumerate(rows):
        top = HEADER + i * pitch
        canvas.paste(letterboxed(row.image), (MARGIN + FRAME, top + FRAME))
        below = top + cell + 3
        _text(draw, (MARGIN + FRAME, below), row.label, 13, TEXT, LABEL_WIDTH, bold=True)
        if known:
            right = sum(bool(hit.relevant) for hit in row.hits)
            _text(draw, (MARGIN + FRAME, below + 18), f"{right} of {len(row.hits)} right", 12, MUTED, LABEL_WIDTH)
        for j in range(columns):
            left = first + j * (cell + GAP)
            if j < len(row.hits):
                _hit(canvas, draw, row.hits[j], left, top, ranking)
            else:
                box = (left + FRAME, top + FRAME, left + FRAME + TILE - 1, top + FRAME + TILE - 1)
                draw.rectangle(box, fill=BLANK)
                _text(draw, (left + FRAME, below), "no result", 12, MUTED, LABEL_WIDTH)
    return canvas


def letterboxed(image: Image.Image) -> Image.Image:
    """Return an image of any 8-bit mode and any shape on a square tile, as large as fits, undistorted."""
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        see_through = image.convert("RGBA")
        image = Image.new("RGBA", image.size, "white")
        image.alpha_composite(see_through)
    image = image.convert("RGB")
    scale = TILE / max(image.size)
    if max(image.size) <= PIXELATED:
        resampling, scale = Image.Resampling.NEAREST, float(int(scale))
    else:
        resampling = Image.Resampling.BICUBIC if scale > 1 else Image.Resampling.LANCZOS
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    tile = Image.new("RGB", (TILE, TILE), BLANK)
    tile.paste(image.resize(size, resampling), ((TILE - size[0]) // 2, (TILE - size[1]) // 2))
    return tile


def _hit(canvas: Image.Image, draw: ImageDraw.ImageDraw, hit: Result, left: int, top: int, ranking: str) -> None:
    cell = TILE + 2 * FRAME
    colour = GRID if hit.relevant is None else SAME_CLASS if hit.relevant else OTHER_CLASS
    draw.rectangle((left, top, left + cell - 1, top + cell - 1), fill=colour)
    canvas.paste(letterboxed(hit.image), (left + FRAME, top + FRAME))
    if hit.relevant is False:
        _cross(draw, left + cell - 20, top)
    distance = f"{hit.distance:.0f}" if ranking == "hamming" else f"{hit.distance:.3f}"
    if hit.tied is not None and hit.tied > 1:
        distance += f" · {hit.tied:,} tied"
    _text(
        draw, (left + FRAME, top + cell + 3), hit.label, 13, OTHER_CLASS if hit.relevant is False else TEXT, LABEL_WIDTH
    )
    _text(draw, (left + FRAME, top + cell + 21), distance, 12, MUTED, LABEL_WIDTH)


def _cross(draw: ImageDraw.ImageDraw, left: int, top: int) -> None:
    """Mark a wrong hit for those who can't tell green from red."""
    draw.rectangle((left, top, left + 19, top + 19), fill=OTHER_CLASS)
    draw.line([(left + 6, top + 6), (left + 13, top + 13)], fill="white", width=2)
    draw.line([(left + 13, top + 6), (left + 6, top + 13)], fill="white", width=2)


def _key(draw: ImageDraw.ImageDraw, right: int, top: int) -> None:
    for text, colour in (("not relevant", OTHER_CLASS), ("relevant", SAME_CLASS)):
        length = round(lettered(text, 13, bold=False)[1].getlength(text))
        _text(draw, (right - length, top), text, 13, TEXT, length + 1)
        draw.rectangle((right - length - 22, top + 1, right - length - 8, top + 15), outline=colour, width=4)
        right -= length + 44


def _text(
    draw: ImageDraw.ImageDraw, at: tuple[int, int], text: str, size: int, colour: str, width: int, *, bold: bool = False
) -> None:
    """Draw one line of text, cut to a width."""
    text, font = lettered(" ".join(text.split()), size, bold)
    length = len(text)
    while length > 1 and font.getlength(shortened(text, length)) > width:
        length -= 1
    draw.text(at, shortened(text, length), fill=colour, font=font)
