"""Style of the plots of runs, reports and benchmarks: colours by meaning, sizes for a screen or a paper, titles.

Nothing global is changed.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any

from matplotlib import rc_context
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

SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
"""Colours of things that are compared (Okabe & Ito), told apart with any colour blindness."""
MARKERS = "osD^vPX"


@dataclass(frozen=True)
class Medium:
    """Sizes of a figure, in inches, and of its texts, in points.

    Attributes:
        single, double: widths: one panel or column, and two.
        height: of one panel.
        panel_width, panel_height: of one of several panels; 0 for equal parts of ``double``.
        left, right, above, below: margins, with room for labels and headings.  A layout engine that measures every text
            takes as long as the drawing itself.
        x_apart, y_apart: from an axis to its label.
        caption, legend_row: what a caption adds to the margin above, and a row of a legend to that below.
        title: size of the bold heading; None where there is none, as a paper's caption says it.
        subtitle, label, text, tick: sizes.
        line: width of the main line.
        dpi: dots an inch, where there are dots.
    """

    single: float
    double: float
    height: float
    panel_width: float
    panel_height: float
    left: float
    right: float
    above: float
    below: float
    x_apart: float
    y_apart: float
    caption: float
    legend_row: float
    title: float | None
    subtitle: float
    label: float
    text: float
    tick: float
    line: float
    dpi: int = 150

    @property
    def scale(self) -> float:
        """How large lines, marks and distances are, 1 on a screen."""
        return self.line / 2


SCREEN = Medium(
    single=6.4, double=9.6, height=4.4, panel_width=3.65, panel_height=1.7,
    left=0.81, right=0.28, above=0.66, below=0.62, x_apart=0.27, y_apart=0.57, caption=0.2, legend_row=0.22,
    title=12, subtitle=9, label=10, text=9, tick=9, line=2,
)  # fmt: skip
PAPER = Medium(
    single=3.3, double=6.9, height=2.3, panel_width=0, panel_height=1.15,
    left=0.49, right=0.17, above=0.23, below=0.36, x_apart=0.17, y_apart=0.35, caption=0.13, legend_row=0.135,
    title=None, subtitle=6.5, label=7.5, text=6.5, tick=6.5, line=1.2,
)  # fmt: skip
"""For a column of 3.3 inches, or a page of 6.9."""

DPI = SCREEN.dpi

# Says at INFO that it looked for fonts.
logging.getLogger("matplotlib").setLevel(logging.WARNING)


class Drawing(Figure):
    """A figure that knows its medium."""

    def __init__(self, medium: Medium, width: float, height: float) -> None:
        super().__init__(figsize=(width, height), dpi=medium.dpi, facecolor="white")
        self.medium = medium
        FigureCanvasAgg(self)


def medium_of(axes: Axes) -> Medium:
    """Return the medium of the figure that axes are in."""
    figure = axes.get_figure(root=True)
    return figure.medium if isinstance(figure, Drawing) else SCREEN


def drawing(
    medium: Medium,
    width: float,
    height: float,
    *,
    left: float | None = None,
    right: float | None = None,
    captions: bool = False,
    legend_rows: int = 0,
) -> Drawing:
    """Return an empty figure with the medium's margins.

    Args:
        medium: what it is for.
        width, height: in inches.
        left, right: margins in inches, if not the medium's.
        captions: whether :func:`caption` will write above the axes.
        legend_rows: of a legend below the axes.
    """
    figure = Drawing(medium, width, height)
    above = medium.above + medium.caption * captions
    below = medium.below + medium.legend_row * legend_rows
    left = medium.left if left is None else left
    right = medium.right if right is None else right
    figure.subplots_adjust(left / width, below / height, 1 - right / width, 1 - above / height)
    return figure


def head(figure: Drawing, title: str, subtitle: str) -> Any:
    """Write a figure's heading, where its medium has one, and a line below it; return that line."""
    medium, (width, height) = figure.medium, figure.get_size_inches()
    x, below = 0.13 / width, 0.05
    if medium.title is not None:
        place: dict[str, Any] = {"ha": "left", "fontweight": "bold", "color": TEXT}
        figure.suptitle(title, x=x, y=1 - 0.1 / height, fontsize=medium.title, **place)
        below = 0.37
    return figure.text(
        x, 1 - below / height, subtitle, ha="left", va="top", fontsize=medium.subtitle, color=MUTED, parse_math=False
    )


def figure_for(
    run: Run,
    title: str,
    *,
    medium: Medium = SCREEN,
    width: float | None = None,
    height: float | None = None,
    name: str | None = None,
    right: float | None = None,
    captions: bool = False,
    legend_rows: int = 0,
) -> Drawing:
    """Return an empty figure headed by what it shows and by the run: data set, what was searched, labels, ranking.

    Args:
        run: whose figure it is.
        title: what it shows.
        medium: what it is for.
        width, height: in inches; those of one panel by default.
        name: of what it shows, if not of what was searched.
        right: margin in inches, if not the medium's.
        captions: whether :func:`caption` will write above the axes.
        legend_rows: of a legend below the axes.
    """
    width, height = width or medium.single, height or medium.height
    figure = drawing(medium, width, height, right=right, captions=captions, legend_rows=legend_rows)
    subtitle = head(figure, title, "")
    for text in _subtitles(run, name or searched_name(run)):
        subtitle.set_text(text)
        if subtitle.get_window_extent().x1 <= (width - 0.1) * medium.dpi:
            break
    return figure


def _subtitles(run: Run, name: str) -> Iterator[str]:
    """Yield what a figure says of its run, ever shorter: the encoder goes first, the code's length last."""
    data, labels, ranking = data_name(run), supervision_name(run), run.metrics.ranking
    for text in (data, data.partition(" (")[0], *(shortened(data, length) for length in range(60, 8, -2))):
        yield f"{text} · {name} · {labels}{ranking} ranking"
    first, dot, length_of_code = name.partition(" · ")
    for length in range(24, 7, -2):
        short = f"{shortened(first, length)}{dot}{length_of_code}"
        yield f"{shortened(data, 10)} · {short} · {labels.removeprefix('trained with ')}{ranking}"


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


def dress(axes: Axes, *, x: str, y: str, grid: str | None = "both", apart: float | None = None) -> None:
    """Label the axes, the vertical one ``apart`` inches from its line, and draw a light frame and grid."""
    medium = medium_of(axes)
    axes.set_xlabel(x, fontsize=medium.label, color=TEXT)
    axes.set_ylabel(y, fontsize=medium.label, color=TEXT)
    # At a fixed distance: to lie beside the ticks' labels they would have to be measured again.
    apart = medium.y_apart if apart is None else apart
    edge, outwards = (0, -apart) if axes.yaxis.get_label_position() == "left" else (1, apart)
    figure = axes.get_figure(root=True)
    axes.xaxis.set_label_coords(0.5, 0, offset_copy(axes.transAxes, figure, y=-medium.x_apart))
    axes.yaxis.set_label_coords(edge, 0.5, offset_copy(axes.transAxes, figure, x=outwards))
    axes.tick_params(labelsize=medium.tick, colors=TEXT, length=3 * medium.scale, pad=3.5 * medium.scale)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#9ca3af")
    if grid is not None:
        axes.grid(visible=True, axis=grid, color=GRID, linewidth=0.8 * medium.scale)  # type: ignore[arg-type]
    axes.set_axisbelow(True)


def caption(axes: Axes, text: str) -> None:
    """Write a line above the axes."""
    # With y given, its place is not looked for.
    axes.set_title(text, y=1, fontsize=medium_of(axes).text, color=TEXT, loc="left", pad=6 * medium_of(axes).scale)


def show_shares(axes: Axes, highest: float) -> None:
    """Set a vertical axis of shares from 0 to 1, or to less where all of them are small."""
    axes.set_ylim(0, 1.04 if highest > 0.4 else max(1.3 * highest, 0.01))


def legend(axes: Axes, **where: Any) -> None:
    """Draw the legend without a frame that hides data."""
    axes.legend(fontsize=medium_of(axes).text, framealpha=0.9, edgecolor="none", labelcolor=TEXT, **where)


def legend_below(figure: Drawing, handles: Sequence[Any], columns: int) -> None:
    """Draw a legend at the lower edge, in the room that ``legend_rows`` left."""
    figure.legend(
        handles=handles, loc="lower center", ncols=columns, fontsize=figure.medium.text, frameon=False, labelcolor=TEXT,
        borderaxespad=0.2, borderpad=0.2, labelspacing=0.35, columnspacing=1.4,
    )  # fmt: skip


def write_figure(figure: Figure, file: IO[bytes], format: str = "png") -> None:
    """Write the figure as PNG, SVG or PDF, with nothing in it that changes from run to run.

    Texts stay texts in SVG and PDF: they can be searched, and edited.
    """
    with warnings.catch_warnings():
        # A name in a script that the font lacks is drawn as boxes; that is no reason to bother the user.
        warnings.filterwarnings("ignore", message="Glyph")
        if format == "png":
            # savefig draws the whole figure twice, the first time for its layout alone.
            FigureCanvasAgg(figure).print_png(file, metadata={"Software": None}, pil_kwargs={"compress_level": 3})
            return
        no_dates = {"svg": {"Date": None, "Creator": None}, "pdf": {"CreationDate": None, "Creator": None}}[format]
        as_text = {"svg.fonttype": "none", "svg.hashsalt": "lshbench", "pdf.fonttype": 42}
        with rc_context(as_text):
            figure.savefig(file, format=format, metadata=no_dates)
