"""Figures of a report: what is drawn, that texts stay texts and lie on no others, and that nothing empty is drawn."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib.text import Text
from test_report import write_run

from lshbench.errors import UsageError
from lshbench.plots.comparison.figures import report_figures
from lshbench.plots.files import write_figures
from lshbench.plots.style import PAPER
from lshbench.report.build import build_report
from lshbench.report.report import Report
from lshbench.report.select import find

LONG = "a_method_with_a_name_that_is_long"


@pytest.fixture
def report(tmp_path: Path) -> Report:
    """Three methods at two code lengths, of which throughput and bytes differ."""
    values = np.random.default_rng(0).random(200)
    for place, (name, bits) in enumerate((name, bits) for name in ("fourier", "itq", LONG) for bits in (16, 32)):
        folder = write_run(tmp_path / "runs", name, values + 0.05 * place, bits=bits)
        path = folder / "metrics.json"
        metrics = json.loads(path.read_text())
        metrics["search"]["qps"] = 1000.0 * 2**place
        metrics["memory"]["bytes_per_item"] = bits / 8
        path.write_text(json.dumps(metrics))
    return build_report(find([tmp_path / "runs"]), resamples=500)


def test_every_figure_that_has_something_to_show_is_drawn_within_its_column(report: Report) -> None:
    figures = dict(report_figures(report, PAPER))
    both = [f"{name}-cifar100_images-full-{bits}-bits" for name in ("tests", "codes", "classes") for bits in (16, 32)]
    wide = [f"{name}-cifar100_images-full" for name in ("bits", "cost", "stages")]
    assert sorted(figures) == sorted([*both, *wide])
    for name, figure in figures.items():
        figure.canvas.draw()
        width, height = figure.get_size_inches()
        assert width <= 6.9, name
        boxes = [
            (text.get_text(), text.get_window_extent())
            for text in figure.findobj(Text)
            if text.get_visible() and text.get_text().strip() and text.get_figure() is not None
        ]
        limits = (-1, -1, width * PAPER.dpi + 1, height * PAPER.dpi + 1)
        for text, box in boxes:
            inside = limits[0] <= box.x0 and limits[1] <= box.y0 and box.x1 <= limits[2] and box.y1 <= limits[3]
            # Ticks outside an axis' limits exist but are not drawn.
            assert inside or re.fullmatch(r"[\d.,−]+", text), f"{name}: {text!r} at {box}"
    words = [text.get_text() for text in figures["bits-cifar100_images-full"].findobj(Text)]
    assert "fourier (labels)" in words
    assert "itq" in words
    assert {"exact cosine, no code", "classifier, no code (labels)"} <= set(words)


def test_figures_are_files_with_texts_and_the_same_every_time(report: Report, tmp_path: Path) -> None:
    first, second = (write_figures(report, tmp_path / name, "svg") for name in ("a", "b"))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    assert all(b"</text>" in path.read_bytes() for path in first)
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"--figures .*file: expected a folder that can be written"):
        write_figures(report, tmp_path / "file", "svg")
