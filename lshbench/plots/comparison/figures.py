"""All plots of a report."""

from __future__ import annotations

import re
from collections.abc import Iterator

from matplotlib.figure import Figure

from lshbench.plots.comparison.cost import cost, stages
from lshbench.plots.comparison.curves import over_bits, recall
from lshbench.plots.comparison.matrices import classes, diagnostics, tests
from lshbench.plots.comparison.shown import parts
from lshbench.plots.gallery import gallery, queries_with_pictures
from lshbench.plots.style import Medium
from lshbench.report.report import Group, Report


def report_figures(report: Report, medium: Medium) -> Iterator[tuple[str, Figure]]:
    """Yield every plot that there is something to draw in, with a file's name without its ending.

    Args:
        report: of several configurations.
        medium: what they are for.
    """
    of_parts = {"bits": over_bits, "cost": cost, "stages": stages}
    of_groups = {
        "recall": recall,
        "tests": tests,
        "codes": diagnostics,
        "classes": classes,
        "gallery": best_beside_next,
    }
    for part in parts(report):
        for name, draw in of_parts.items():
            if (figure := draw(report, part, medium)) is not None:
                yield f"{name}-{slug(part.title)}", figure
    for group in report.groups:
        for name, draw_group in of_groups.items():
            if (figure := draw_group(report, group, medium)) is not None:
                yield f"{name}-{slug(group.title)}", figure


def best_beside_next(report: Report, group: Group, medium: Medium) -> Figure | None:
    """Draw the hits of the best configuration beside the next one's, for the queries in which they differ most.

    None where not both keep pictures of the same queries.
    """
    if len(group.configurations) < 2:
        return None
    pair = group.configurations[:2]
    runs = [one.runs[0] for one in pair]
    both = set(queries_with_pictures(runs[0])) & set(queries_with_pictures(runs[1]))
    repeats = [one.repeats[report.measures[0]][0] for one in pair]
    values = [dict(zip(one.queries.tolist(), one.values.tolist(), strict=True)) for one in repeats]
    ordered = sorted(both, key=lambda query: (-abs(values[0][query] - values[1][query]), query))
    return gallery(runs, ordered, medium)


def slug(title: str) -> str:
    """Return a title as a part of a file's name."""
    return re.sub(r"[^\w.=]+", "-", title.replace("protocol ", "")).strip("-")
