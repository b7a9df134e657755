"""Style of the plots: colours by meaning, sizes, titles.  Nothing global is changed."""

from __future__ import annotations

import logging
import warnings
from typing import IO, Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

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

# Says at INFO that it looked for fonts.
logging.getLogger("matplotlib").setLevel(logging.WARNING)


def figure_for(
    run: Run, title: str, *, width: float = WIDTH, height: float = HEIGHT, name: str | None = None
) -> Figure:
    """Return an empty figure headed by what it shows and by the run: data set, what was searched, ranking.

    Args:
        run: whose figure it is.
        title: what it shows.
        width, height: in inches.
        name: of what it shows, if not of what was searched.
    """
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.1)  # type: ignore[union-attr, call-arg]
    # The second, empty line keeps a place for the subtitle.
    figure.suptitle(
        f"{title}\n", x=0.13 / width, ha="left", fontsize=12, fontweight="bold", color=TEXT, linespacing=1.15
    )
    name = name or searched_name(run)
    below = figure.text(0.13 / width, 1 - 0.37 / height, "", ha="left", va="top", fontsize=9, color=MUTED)
    below.set_parse_math(False)
    below.set_in_layout(False)
    for length in range(60, 8, -2):
        below.set_text(f"{shortened(data_name(run), length)} · {name} · {run.metrics.ranking} ranking")
        if below.get_window_extent().x1 <= (width - 0.1) * DPI:
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


def shortened(text: str, length: int) -> str:
    """Return at most so many characters, the last an ellipsis where some are left out."""
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


def dress(axes: Axes, *, x: str, y: str, grid: str | None = "both") -> None:
    """Label the axes, and draw a light frame and grid."""
    axes.set_xlabel(x, fontsize=10, color=TEXT)
    axes.set_ylabel(y, fontsize=10, color=TEXT)
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
    axes.set_title(text, fontsize=9, color=TEXT, loc="left")


def show_shares(axes: Axes, highest: float) -> None:
    """Let a vertical axis of shares reach from 0 to 1, or less far where all of them are small."""
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
        figure.get_layout_engine().execute(figure)  # type: ignore[union-attr]
        figure.set_layout_engine("none")
        FigureCanvasAgg(figure).print_png(file, metadata={"Software": None})
