"""Style of the plots: colours by meaning, sizes, titles.  Nothing global is changed."""

from __future__ import annotations

import logging
import warnings
from typing import IO, Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.transforms import offset_copy

from lshbench.run_folder import Run

# One colour, one meaning, in every plot; told apart with red-green blindness too, and in grey by lightness.
RUN = "#0b5394"
REFERENCE = "#6b7280"
SAME_CLASS = "#009e73"
OTHER_CLASS = "#cf2e2e"
VALIDATION = "#e08a00"
GRID = "#e5e7eb"
TEXT = "#1f2937"
MUTED = "#6b7280"

DPI = 150
WIDTH = 6.4
HEIGHT = 4.4
LEFT, RIGHT, ABOVE, BELOW = 0.81, 0.28, 0.66, 0.62
"""Margins in inches, with room for labels and headings.  A layout engine that measures every text takes as long as the
drawing itself."""
CAPTION, LEGEND_ROW = 0.2, 0.22
"""What a caption adds to the margin above, and a row of a legend below the axes to that below."""

# Says at INFO that it looked for fonts.
logging.getLogger("matplotlib").setLevel(logging.WARNING)


def figure_for(
    run: Run,
    title: str,
    *,
    width: float = WIDTH,
    height: float = HEIGHT,
    name: str | None = None,
    right: float = RIGHT,
    captions: bool = False,
    legend_rows: int = 0,
) -> Figure:
    """Return an empty figure headed by what it shows and by the run: data set, what was searched, labels, ranking.

    Args:
        run: whose figure it is.
        title: what it shows.
        width, height: in inches.
        name: of what it shows, if not of what was searched.
        right: margin in inches.
        captions: whether :func:`caption` will write above the axes.
        legend_rows: of a legend below the axes.
    """
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    above, below = ABOVE + CAPTION * captions, BELOW + LEGEND_ROW * legend_rows
    figure.subplots_adjust(LEFT / width, below / height, 1 - right / width, 1 - above / height)
    x = 0.13 / width
    figure.suptitle(title, x=x, y=1 - 0.1 / height, ha="left", fontsize=12, fontweight="bold", color=TEXT)
    name = name or searched_name(run)
    subtitle = figure.text(x, 1 - 0.37 / height, "", ha="left", va="top", fontsize=9, color=MUTED, parse_math=False)
    rest = f"{name} · {supervision_name(run)}{run.metrics.ranking} ranking"
    for length in range(60, 8, -2):
        subtitle.set_text(f"{shortened(data_name(run), length)} · {rest}")
        if subtitle.get_window_extent().x1 <= (width - 0.1) * DPI:
            break
    return figure


def data_name(run: Run) -> str:
    """Return the data set's name, with the encoder's if there was one, and a flag where queries leaked."""
    dataset = run.metrics.dataset
    flag = "LEAK · " if run.metrics.protocol.leak else ""
    return flag + dataset.name + (f" ({dataset.backbone})" if dataset.backbone else "")


def method_name(run: Run) -> str:
    """Return the method's name, with the code's length if it gives codes."""
    name, bits = shortened(run.metrics.method.name, 24), run.metrics.method.bits
    if bits is None or run.metrics.codes.entropy_bits is None:
        return name
    return f"{name} · {bits:,} bit{'s' if bits > 1 else ''}"


def searched_name(run: Run) -> str:
    """Return the name that figures stand under, with the code's length if there are codes."""
    return run.metrics.searched if run.metrics.features_alone else method_name(run)


def supervision_name(run: Run) -> str:
    """Return whether the method was trained with labels, with a dot behind it; nothing where no method was searched."""
    if run.metrics.features_alone:
        return ""
    return "trained with labels · " if run.metrics.method.supervision == "labels" else "no labels · "


def shortened(text: str, length: int) -> str:
    """Return at most so many characters, the last an ellipsis where some are left out."""
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


def dress(axes: Axes, *, x: str, y: str, grid: str | None = "both", apart: float = 0.57) -> None:
    """Label the axes, the vertical one ``apart`` inches from its line, and draw a light frame and grid."""
    axes.set_xlabel(x, fontsize=10, color=TEXT)
    axes.set_ylabel(y, fontsize=10, color=TEXT)
    # At a fixed distance: to lie beside the ticks' labels they would have to be measured again.
    edge, outwards = (0, -apart) if axes.yaxis.get_label_position() == "left" else (1, apart)
    figure = axes.get_figure(root=True)
    axes.xaxis.set_label_coords(0.5, 0, offset_copy(axes.transAxes, figure, y=-0.27))
    axes.yaxis.set_label_coords(edge, 0.5, offset_copy(axes.transAxes, figure, x=outwards))
    axes.tick_params(labelsize=9, colors=TEXT, length=3)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#9ca3af")
    if grid is not None:
        axes.grid(visible=True, axis=grid, color=GRID, linewidth=0.8)  # type: ignore[arg-type]
    axes.set_axisbelow(True)


def caption(axes: Axes, text: str) -> None:
    """Write a line above the axes."""
    # With y given, its place is not looked for.
    axes.set_title(text, y=1, fontsize=9, color=TEXT, loc="left")


def show_shares(axes: Axes, highest: float) -> None:
    """Set a vertical axis of shares from 0 to 1, or to less where all of them are small."""
    axes.set_ylim(0, 1.04 if highest > 0.4 else max(1.3 * highest, 0.01))


def legend(axes: Axes, **where: Any) -> None:
    """Draw the legend without a frame that hides data."""
    axes.legend(fontsize=9, framealpha=0.9, edgecolor="none", labelcolor=TEXT, **where)


def write_png(figure: Figure, file: IO[bytes]) -> None:
    """Write the figure as PNG, with nothing in it that changes from run to run."""
    with warnings.catch_warnings():
        # A name in a script that the font lacks is drawn as boxes; that is no reason to bother the user.
        warnings.filterwarnings("ignore", message="Glyph")
        # savefig draws the whole figure twice, the first time for its layout alone.
        FigureCanvasAgg(figure).print_png(file, metadata={"Software": None}, pil_kwargs={"compress_level": 3})
