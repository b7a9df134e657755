"""The page of a report: one HTML file with its data, script and plotting library inside, which asks for nothing."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from importlib import resources
from itertools import islice
from typing import Any

import numpy as np

from lshbench.report.queries import ClassQuality, Shown, class_quality, shown_queries
from lshbench.report.report import Configuration, Group, Report, measure_name
from lshbench.report.tables import best_sentence
from lshbench.run_folder import Run
from lshbench.run_folder.contents import CURVES

DETAILED = 60
"""Configurations of which queries and pictures are shown; others have figures and curves only, and the page says so."""

PICTURES = 2_400_000
"""Characters that the pictures of a page may take, in equal parts for the configurations shown in detail."""

POINTS = 51
"""Recall levels of the page's curves."""


def page(report: Report) -> str:
    """Return the page as HTML."""
    template = resources.files("lshbench").joinpath("report/page.html").read_text(encoding="utf-8")
    library = resources.files("plotly").joinpath("package_data/plotly.min.js").read_text(encoding="utf-8")
    data = json.dumps(_rounded(page_data(report)), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    # A closing tag or a comment inside a script would end it early.
    data = data.replace("<", "\\u003c")
    before, _, rest = template.partition("/*PLOTLY*/")
    middle, _, after = rest.partition("/*DATA*/")
    return "".join([before, library.replace("</script", "<\\/script"), middle, data, after])


def page_data(report: Report) -> dict[str, Any]:
    """Return what the page shows, as plain values."""
    detailed = {one.identity for one in islice(_by_turns(report.groups), DETAILED)}
    pictures: dict[str, str] = {}
    groups: list[dict[str, Any]] = []
    configurations: list[dict[str, Any]] = []
    for group in report.groups:
        members = [one for one in group.configurations if one.identity in detailed]
        shown = shown_queries(members, report.measures[0], pictures, PICTURES // max(1, len(detailed)))
        classes = class_quality(members, report.measures[0])
        first = len(configurations)
        places = {one.name: first + place for place, one in enumerate(group.configurations)}
        groups.append(
            {
                "title": group.title,
                "best": [{**asdict(best), "sentence": best_sentence(best)} for best in group.best],
                "members": list(places.values()),
                "pairs": {
                    measure_name(name): [
                        [
                            places[pair.first],
                            places[pair.second],
                            pair.test.difference,
                            pair.test.p_value,
                            pair.adjusted,
                        ]
                        for pair in pairs
                    ]
                    for name, pairs in group.pairs.items()
                },
                "untested": list(group.untested),
                "classes": _classes(classes),
            }
        )
        configurations += [_configuration(one, shown, classes) for one in group.configurations]
    return {
        "measures": [measure_name(name) for name in report.measures],
        "level": report.level,
        "resamples": report.resamples,
        "counts": report.selection.counts(),
        "left_out": report.selection.notes()[:50],
        "left_out_count": len(report.selection.notes()),
        "notes": list(report.notes),
        "groups": groups,
        "configurations": configurations,
        "pictures": pictures,
        "detailed": len(detailed),
        "definitions": [
            {"key": row.key, "formula": row.formula, "seen": ", ".join(row.published_by)}
            for row in report.definitions.rows
        ],
    }


def _by_turns(groups: Sequence[Group]) -> Iterable[Configuration]:
    """Yield the best of every group, then the second of each, and so on."""
    for place in range(max(len(group.configurations) for group in groups)):
        for group in groups:
            if place < len(group.configurations):
                yield group.configurations[place]


def _configuration(
    one: Configuration, shown: Mapping[str, list[Shown]], classes: ClassQuality | None
) -> dict[str, Any]:
    plain = (
        "name", "series", "dataset", "backbone", "protocol", "method", "bits", "index", "ranking", "supervision",
        "leak", "gallery", "queries",
    )  # fmt: skip
    return {
        **{key: getattr(one, key) for key in plain},
        "seeds": list(one.seeds),
        "means": {
            measure_name(name): [
                mean.interval.mean, mean.interval.low, mean.interval.high, mean.spread, mean.exact_cosine,
            ]
            for name, mean in one.means.items()
        },
        "cost": asdict(one.cost),
        "time": dict(one.time_s),
        "codes": dict(one.codes),
        **_curves(one.runs),
        "classes": None if classes is None else classes.values.get(one.identity),
        "shown": [asdict(query) for query in shown.get(one.identity, [])],
    }  # fmt: skip


def _classes(classes: ClassQuality | None) -> dict[str, Any] | None:
    return None if classes is None else {"names": classes.names, "left_out": classes.left_out}


def _curves(runs: Sequence[Run]) -> dict[str, list[float] | None]:
    """Return the mean over seeds of precision over recall, of exact cosine's, and the first seed's bit means."""
    curves = [run.curves() for run in runs if run.has(CURVES)]
    if not curves:
        return {"precision": None, "exact_precision": None, "bit_means": None}
    levels = np.linspace(0, 1, POINTS)
    precision = np.mean([np.interp(levels, one.recall, one.precision) for one in curves], axis=0)
    exact = [
        np.interp(levels, one.recall, one.reference_precision) for one in curves if one.reference_precision is not None
    ]
    bits = curves[0].bit_means
    return {
        "precision": precision.tolist(),
        "exact_precision": np.mean(exact, axis=0).tolist() if exact else None,
        "bit_means": None if bits is None else bits[:512].tolist(),
    }


def _rounded(value: Any) -> Any:
    """Return numbers with five digits, which is more than the page shows; the CSV has them in full."""
    if isinstance(value, float):
        return float(f"{value:.5g}") if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return value
