"""All plots of a report."""

from __future__ import annotations

import re
from collections.abc import Iterator

from matplotlib.figure import Figure

from lshbench.plots.comparison.cost import cost, stages
from lshbench.plots.comparison.curves import over_bits, recall
from lshbench.plots.comparison.matrices import classes, diagnostics, tests
from lshbench.plots.comparison.shown import parts
from lshbench.plots.style import Medium
from lshbench.report.report import Report


def report_figures(report: Report, medium: Medium) -> Iterator[tuple[str, Figure]]:
    """Yield every plot that there is something to draw in, with a file's name without its ending.

    Args:
        report: of several configurations.
        medium: what they are for.
    """
    of_parts = {"bits": over_bits, "cost": cost, "stages": stages}
    of_groups = {"recall": recall, "tests": tests, "codes": diagnostics, "classes": classes}
    for part in parts(report):
        for name, draw in of_parts.items():
            if (figure := draw(report, part, medium)) is not None:
                yield f"{name}-{slug(part.title)}", figure
    for group in report.groups:
        for name, draw_group in of_groups.items():
            if (figure := draw_group(report, group, medium)) is not None:
                yield f"{name}-{slug(group.title)}", figure


def slug(title: str) -> str:
    """Return a title as a part of a file's name."""
    return re.sub(r"[^\w.=]+", "-", title.replace("protocol ", "")).strip("-")
