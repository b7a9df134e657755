"""The report as text: to a terminal, as CSV, Markdown, LaTeX and JSON."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING, Any

from lshbench.report.report import Configuration, Group, Report, measure_name
from lshbench.report.tables import Table, definition_tables, latex_table, markdown_table, print_table, tables
from lshbench.report.winners import Pair

if TYPE_CHECKING:
    from rich.console import Console

COLUMNS = (
    "record", "group", "measure", "configuration", "against", "dataset", "backbone", "protocol", "method", "bits",
    "index", "ranking", "supervision", "leak", "seeds", "queries", "gallery", "mean", "low", "high", "level", "spread",
    "exact_cosine", "exact_codes", "classifier", "predicted_class",
    "candidates", "candidates_fraction", "qps", "qps_with_encoding", "latency_p95_ms",
    "latency_with_encoding_p95_ms", "busy", "bytes_per_item",
    "code_bytes_per_item", "index_bytes_per_item", "feature_bytes_per_item",
    "recall_at_10_cosine", "peak_memory_bytes", "total_s", "difference", "p_value", "p_value_holm", "exact", "pairs",
    "resamples", "seed",
)  # fmt: skip
"""Columns of the CSV. ``record`` is ``mean``, a row for each configuration and measure, or ``test``, one a pair."""


def print_report(report: Report, console: Console, *, definitions: bool = False) -> None:
    """Print the report's tables, and what was left out."""
    for table in definition_tables(report.definitions) if definitions else tables(report):
        print_table(table, console)
    for line in (*report.notes, f"{report.selection.counts()}."):
        console.print(line, highlight=False, markup=False)


def markdown(report: Report, *, definitions: bool = False) -> str:
    """Return the report in Markdown."""
    parts = ["# Comparison of runs\n", f"{report.selection.counts()}.\n"]
    parts += [f"- {note}" for note in (*report.notes, *report.selection.notes())]
    if parts[-1].startswith("- "):
        parts[-1] += "\n"
    parts += [markdown_table(table) for table in _tables(report, definitions)]
    return "\n".join(parts)


def latex(report: Report, *, definitions: bool = False) -> str:
    """Return the report's tables in LaTeX."""
    left_out = "".join(f"% {note}\n" for note in (report.selection.counts(), *report.selection.notes()))
    head = f"% needs \\usepackage{{booktabs}}\n{left_out}"
    return "\n".join([head, *map(latex_table, _tables(report, definitions))])


def _tables(report: Report, definitions: bool) -> list[Table]:
    return definition_tables(report.definitions) if definitions else tables(report)


def csv_text(report: Report, *, definitions: bool = False) -> str:
    """Return the report as CSV, every number in full: a row for each mean and for each test (:data:`COLUMNS`)."""
    stream = io.StringIO()
    if definitions:
        plain = csv.writer(stream, lineterminator="\n")
        plain.writerow(["definition", "configuration", "mean", "leak", "formula"])
        for row in report.definitions.rows:
            for name, leak, value in zip(report.definitions.names, report.definitions.leaks, row.values, strict=True):
                plain.writerow([row.key, name, _cell(value), _cell(leak), row.formula])
        return stream.getvalue()
    writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n", restval="")
    writer.writeheader()
    for group in report.groups:
        for one in group.configurations:
            for name in report.measures:
                writer.writerow(_plain(_mean_row(report, group, one, name)))
        named = {one.name: one for one in group.configurations}
        for name, pairs in group.pairs.items():
            for pair in pairs:
                writer.writerow(_plain(_test_row(report, group, named[pair.first], pair, name)))
    return stream.getvalue()


def _mean_row(report: Report, group: Group, one: Configuration, name: str) -> dict[str, Any]:
    mean, cost = one.means[name], one.cost
    return {
        "record": "mean",
        **_shared(report, group, one, name),
        "mean": mean.interval.mean,
        "low": mean.interval.low,
        "high": mean.interval.high,
        "level": mean.interval.level,
        "spread": mean.spread,
        "exact_cosine": mean.exact_cosine,
        "exact_codes": mean.exact_codes,
        "classifier": mean.classifier,
        "predicted_class": mean.predicted_class,
        "candidates": cost.candidates,
        "candidates_fraction": cost.candidates_fraction,
        "qps": cost.qps,
        "qps_with_encoding": cost.qps_with_encoding,
        "latency_p95_ms": cost.latency_p95_ms,
        "latency_with_encoding_p95_ms": cost.latency_with_encoding_p95_ms,
        "busy": cost.busy,
        "bytes_per_item": cost.bytes_per_item,
        "code_bytes_per_item": cost.code_bytes_per_item,
        "index_bytes_per_item": cost.index_bytes_per_item,
        "feature_bytes_per_item": cost.feature_bytes_per_item,
        "recall_at_10_cosine": cost.recall_at_10_cosine,
        "peak_memory_bytes": cost.peak_memory_bytes,
        "total_s": one.time_s.get("total"),
        "resamples": max(100, report.resamples // 5),
    }


def _test_row(report: Report, group: Group, one: Configuration, pair: Pair, name: str) -> dict[str, Any]:
    seeds = " ".join(map(str, one.seeds)) if pair.seeds == "all" else pair.seeds.replace(",", "")
    return {
        "record": "test",
        **_shared(report, group, one, name),
        "against": pair.second,
        "seeds": seeds,
        "difference": pair.test.difference,
        "p_value": pair.test.p_value,
        "p_value_holm": pair.adjusted,
        "exact": pair.test.exact,
        "pairs": pair.test.pairs,
        "resamples": report.resamples,
    }


def _shared(report: Report, group: Group, one: Configuration, name: str) -> dict[str, Any]:
    return {
        "group": group.title,
        "measure": measure_name(name),
        "configuration": one.name,
        "dataset": one.dataset,
        "backbone": one.backbone,
        "protocol": one.protocol,
        "method": one.method,
        "bits": one.bits,
        "index": one.index,
        "ranking": one.ranking,
        "supervision": one.supervision,
        "leak": one.leak,
        "seeds": " ".join(map(str, one.seeds)),
        "queries": one.queries,
        "gallery": one.gallery,
        "seed": report.seed,
    }


def _plain(row: dict[str, Any]) -> dict[str, str]:
    return {key: _cell(value) for key, value in row.items()}


def _cell(value: object) -> str:
    """Return a number with all its digits, true or false, and nothing for None."""
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else repr(value) if isinstance(value, float) else str(value)


def json_text(report: Report, *, definitions: bool = False) -> str:
    """Return the report's figures, or its definitions, as JSON."""
    content = report.definitions.as_dict() if definitions else report.as_dict()
    return json.dumps(content, indent=2, allow_nan=False) + "\n"
