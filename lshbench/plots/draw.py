"""Drawing a run's plots into its folder.  matplotlib is imported when the first one is drawn."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from lshbench.run_folder import Run, atomic_file
from lshbench.run_folder.contents import (
    BIT_BALANCE_PLOT,
    DISTANCES_PLOT,
    LOSS_PLOT,
    PRECISION_AT_K_PLOT,
    PRECISION_RECALL_PLOT,
    RETRIEVAL_PLOT,
    TRADEOFF_PLOT,
    TRAINING_PLOT,
)

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

    from lshbench.plots.retrieval import Pictures
    from lshbench.plots.style import Medium
    from lshbench.types import Features, Neighbors


def figures(run: Run, medium: Medium | None = None) -> Iterator[tuple[str, Figure]]:
    """Yield every plot that a run's files allow, with its file's name in the run's folder.

    A method without codes has no plot of bits, one that isn't trained no training curve, and an index that was
    searched with one setting no trade-off.

    Args:
        run: finished, or with every file but ``metrics.json``.
        medium: what they are for; a screen by default.
    """
    from lshbench.plots import bits, distances, loss, precision, style, tradeoff, training

    plots = {
        PRECISION_RECALL_PLOT: precision.precision_recall,
        PRECISION_AT_K_PLOT: precision.precision_at_k,
        DISTANCES_PLOT: distances.distances,
        BIT_BALANCE_PLOT: bits.bit_balance,
        TRAINING_PLOT: training.training,
        LOSS_PLOT: loss.loss,
        TRADEOFF_PLOT: tradeoff.tradeoff,
    }
    for name, draw in plots.items():
        figure = draw(run, medium or style.SCREEN)
        if figure is not None:
            yield name, figure


def draw_all(run: Run) -> list[Path]:
    """Draw every plot that a run's files allow into ``plots/``, and return their paths.

    Args:
        run: finished, or with every file but ``metrics.json``.
    """
    from lshbench.plots.style import write_figure

    drawn = []
    for name, figure in figures(run):
        with atomic_file(run.path / name) as file:
            write_figure(figure, file)
        drawn.append(run.path / name)
    return drawn


def draw_retrieval(
    run: Run, dataset: Pictures, gallery: Features, queries: Features, neighbors: Neighbors, right: np.ndarray
) -> Path:
    """Draw ``plots/retrieval.png``: a few queries and their first ten results as pictures.

    Args:
        run: finished, or with every file but ``metrics.json``.
        dataset: gives an item's picture by its number.
        gallery, queries: labels and item numbers of the two sides.
        neighbors: the first results of each query.
        right: bool ``(q, 10)``, which of them are relevant.
    """
    from lshbench.plots.retrieval import chosen_rows, retrieval
    from lshbench.plots.style import data_name, searched_name

    rows = chosen_rows(dataset, gallery, queries, neighbors, right)
    path = run.path / RETRIEVAL_PLOT
    with atomic_file(path) as file:
        title = f"{data_name(run)} · {searched_name(run)}"
        retrieval(rows, title=title, ranking=run.metrics.ranking).save(file, format="PNG")
    return path


def keep_thumbnails(run: Run, dataset: Pictures, gallery: Features, queries: Features, neighbors: Neighbors) -> None:
    """Keep small pictures of a few queries and their first ten hits in the run's folder, for reports.

    The queries are the same in every run of a data set, so that runs can be shown side by side.  Where pictures take
    long to read, there are fewer: :data:`lshbench.plots.retrieval.SECONDS` bounds the time.

    Args:
        run: finished, or with every file but ``metrics.json``.
        dataset: gives an item's picture by its number.
        gallery, queries: labels and item numbers of the two sides.
        neighbors: the first results of each query.
    """
    from lshbench.plots.retrieval import thumbnails
    from lshbench.run_folder.thumbnails import write_thumbnails

    write_thumbnails(run, thumbnails(dataset, gallery, queries, neighbors))
