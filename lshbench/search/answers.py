"""Output of search results as tables, JSON or a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lshbench.errors import wrong_value
from lshbench.run_folder.disk import check_writable

if TYPE_CHECKING:
    from PIL.Image import Image
    from rich.console import Console

    from lshbench.search.searcher import Answer, Hit, Searcher

PICTURE_HITS, PICTURE_QUERIES = 50, 200
"""More would make a picture that few programs open."""


@dataclass(frozen=True)
class Seconds:
    """Seconds for opening the run, and for answering from images to hits."""

    load: float
    answer: float


def as_json(searcher: Searcher, answers: Sequence[Answer], k: int, seconds: Seconds) -> dict[str, Any]:
    """Return answers as plain values.

    ``queries`` has an entry for each query, in order: ``query``, ``candidates`` (items compared) and ``hits``, each
    with ``rank``, ``distance``, ``tied`` (items at that Hamming distance; null by cosine), ``row`` (of the gallery),
    ``item`` (of the data set), ``name``, ``label``, ``class``.
    Label and class are lists where an item may have several; the class is null where classes have no names.
    """
    return {
        "run": str(searcher.run.path),
        "run_id": searcher.run.metrics.run_id,
        "ranking": searcher.ranking,
        "gallery": len(searcher),
        "k": k,
        "time_s": {"load": round(seconds.load, 4), "answer": round(seconds.answer, 4)},
        "queries": [
            {
                "query": answer.query,
                "candidates": answer.candidates,
                "hits": [
                    {
                        "rank": hit.rank,
                        "row": hit.row,
                        "item": hit.item,
                        "name": hit.name,
                        "label": hit.label,
                        "class": hit.class_name,
                        "distance": int(hit.distance) if searcher.ranking == "hamming" else hit.distance,
                        "tied": hit.tied,
                    }
                    for hit in answer.hits
                ],
            }
            for answer in answers
        ],
    }


def print_tables(searcher: Searcher, answers: Sequence[Answer], k: int, seconds: Seconds, console: Console) -> None:
    """Print a table for each query, and what all of them took."""
    from rich.box import SIMPLE_HEAD
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    for answer in answers:
        console.print()
        console.print(Text(answer.query, style="bold"), soft_wrap=True)
        if answer.candidates < len(searcher):
            compared = f"compared with {answer.candidates:,} of {len(searcher):,} items"
            short = "" if len(answer.hits) == k else f": {len(answer.hits)} of {k} hits"
            console.print(f"  {compared}{short}", highlight=False)
        if not answer.hits:
            continue
        table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, safe_box=True)
        counted = any(hit.tied is not None for hit in answer.hits)
        for name in ("rank", "distance", *(["tied"] if counted else [])):
            table.add_column(name, justify="right")
        table.add_column("label", style="bold", overflow="fold")
        for name in ("row", "item"):
            table.add_column(name, justify="right")
        table.add_column("name", overflow="fold")
        for hit in answer.hits:
            item = str(hit.item)
            where = Text(hit.name or "-")
            cells = [str(hit.rank), distance_text(hit, searcher.ranking), *([f"{hit.tied:,}"] if counted else [])]
            table.add_row(*cells, Text(hit.caption), str(hit.row), item, where)
        console.print()
        console.print(Padding(table, (0, 0, 0, 2), expand=False))
    console.print()
    number = f"{len(answers):,} {'query' if len(answers) == 1 else 'queries'}"
    console.print(
        f"loaded in {seconds.load:.1f} s; {number} answered in {seconds.answer:.3f} s, by {searcher.ranking} distance",
        highlight=False,
    )


def distance_text(hit: Hit, ranking: str) -> str:
    """Return a distance as people read it: whole bits, or 1 - cosine to four places."""
    return f"{hit.distance:.0f}" if ranking == "hamming" else f"{hit.distance:.4f}"


def check_picture(path: Path, k: int, queries: int) -> None:
    """Check the options of ``--picture``, before anything is loaded.

    Raises:
        UsageError: another kind of file, or more hits or queries than a picture has room for.
    """
    if path.suffix.lower() != ".png":
        raise wrong_value("--picture", str(path), "the name of a .png file")
    check_writable("--picture", path)
    if k > PICTURE_HITS:
        raise wrong_value("-k", k, f"at most {PICTURE_HITS} with --picture")
    if queries > PICTURE_QUERIES:
        raise wrong_value("IMAGE", f"{queries} images", f"at most {PICTURE_QUERIES} with --picture")


def draw_picture(path: Path, searcher: Searcher, queries: Sequence[Image], answers: Sequence[Answer]) -> None:
    """Draw each query and its hits in a row, as ``plots/retrieval.png`` does; a query's class isn't known.

    Args:
        path: where the PNG goes; missing folders are made.
        searcher: gives the hits' pictures.
        queries: the queries' pictures, in the order of their answers.
        answers: at least one.
    """
    from lshbench.plots.retrieval import Result, Row, retrieval
    from lshbench.plots.style import data_name, searched_name
    from lshbench.run_folder import atomic_file

    rows = [
        Row(
            query,
            Path(answer.query).name,
            [Result(searcher.image(hit), hit.caption, hit.distance, None, hit.tied) for hit in answer.hits],
        )
        for query, answer in zip(queries, answers, strict=True)
    ]
    title = f"{data_name(searcher.run)} · {searched_name(searcher.run)}"
    with atomic_file(path) as file:
        retrieval(rows, title=title, ranking=searcher.ranking).save(file, format="PNG")
