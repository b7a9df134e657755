"""Which plots a run gets, and where they go.  matplotlib is imported when the first one is drawn."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lshbench.run_folder import Run, atomic_file

if TYPE_CHECKING:
    from lshbench.plots.retrieval import Pictures
    from lshbench.types import Features, Neighbors


def draw_all(folder: Path, metrics: Mapping[str, Any]) -> list[Path]:
    """Draw every plot that a run's files allow into ``plots/``; return what was drawn.

    A method without codes has no bits to show, one that doesn't train no training curve.

    Args:
        folder: a run's folder, with every file but perhaps ``metrics.json``.
        metrics: what ``metrics.json`` holds, or will hold.
    """
    from lshbench.plots import bits, distances, precision, style, tradeoff, training

    run = Run(folder, dict(metrics))
    pictures = {
        "precision_recall.png": precision.precision_recall,
        "precision_at_k.png": precision.precision_at_k,
        "distances.png": distances.distances,
        "bit_balance.png": bits.bit_balance,
        "training.png": training.training,
        "tradeoff.png": tradeoff.tradeoff,
    }
    drawn = []
    for name, draw in pictures.items():
        figure = draw(run)
        if figure is not None:
            path = folder / "plots" / name
            with atomic_file(path) as file:
                style.write_png(figure, file)
            drawn.append(path)
    return drawn


def draw_retrieval(
    folder: Path,
    metrics: Mapping[str, Any],
    dataset: Pictures,
    gallery: Features,
    queries: Features,
    neighbors: Neighbors,
) -> Path:
    """Draw ``plots/retrieval.png``: a few queries and their first ten hits as pictures.

    Args:
        folder: a run's folder.
        metrics: what ``metrics.json`` holds, or will hold.
        dataset: gives an item's picture by its number.
        gallery, queries: labels and item numbers of the two sides.
        neighbors: the first results of each query.
    """
    from lshbench.plots.retrieval import chosen_rows, retrieval
    from lshbench.plots.style import data_name, searched_name

    rows = chosen_rows(dataset, gallery, queries, neighbors)
    run = Run(folder, dict(metrics))
    title = f"{data_name(run)} · {searched_name(run)}"
    path = folder / "plots" / "retrieval.png"
    with atomic_file(path) as file:
        retrieval(rows, title=title, ranking=metrics["ranking"]).save(file, format="PNG")
    return path
