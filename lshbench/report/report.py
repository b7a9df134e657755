"""The report: one object with everything that is known of a selection of runs, which every rendering takes.

Runs that differ in nothing but the seed have the same ``configuration_id``: they are repeats of one configuration.
Configurations of one data set and protocol, and by default of one code length, form a group.
:mod:`lshbench.report.build` makes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lshbench.metrics.significance import Interval
from lshbench.report.definitions import DefinitionTable
from lshbench.report.repeats import Repeat
from lshbench.report.select import Selection
from lshbench.report.winners import Best, Pair
from lshbench.run_folder import Run


def measure_name(column: str) -> str:
    """Return what the mean of a column is called: mAP is the mean of AP."""
    return "mAP" if column == "AP" else column


@dataclass(frozen=True)
class Mean:
    """A measure of one configuration.

    Attributes:
        interval: mean over seeds and queries, with its bootstrap interval.
        seed_means: the mean of each seed, by ascending seed.
        spread: their standard deviation (n - 1); None for one seed.
        exact_cosine: the mean over seeds by exact cosine ranking of the same features; None where it is not known.
        exact_codes: the same by the codes' exact ranking of the whole gallery.
        classifier: the same by the probabilities of the classifier beside a method that was trained with labels.
        predicted_class: the same by that classifier's predicted class alone.
    """

    interval: Interval
    seed_means: tuple[float, ...]
    spread: float | None
    exact_cosine: float | None
    exact_codes: float | None
    classifier: float | None = None
    predicted_class: float | None = None


@dataclass(frozen=True)
class Cost:
    """What a search costs, mean over seeds; None where a run has no such figure.

    Attributes:
        candidates: gallery items compared with a query, on average.
        candidates_fraction: the same as a share of the gallery.
        qps: queries a second, in batches, encoding left out.
        latency_p95_ms: milliseconds for 95 % of single queries.
        qps_with_encoding, latency_with_encoding_p95_ms: the same from features to results.
        busy: whether the machine was busy with other work in any of the runs, so that times may be too long.
        bytes_per_item: of code, index and the features that searching reads besides.
        code_bytes_per_item, index_bytes_per_item, feature_bytes_per_item: these apart.
        recall_at_10_cosine: share of the first ten by exact cosine that were found.
        peak_memory_bytes: largest resident size of the process.
    """

    candidates: float | None
    candidates_fraction: float | None
    qps: float | None
    qps_with_encoding: float | None
    latency_p95_ms: float | None
    latency_with_encoding_p95_ms: float | None
    busy: bool
    bytes_per_item: float | None
    code_bytes_per_item: float | None
    index_bytes_per_item: float | None
    feature_bytes_per_item: float | None
    recall_at_10_cosine: float | None
    peak_memory_bytes: float | None


@dataclass(frozen=True)
class Configuration:
    """Runs that differ in nothing but the seed.

    Attributes:
        identity: their ``configuration_id``.
        name: method, bits, and whatever else sets it apart from the others of its group.
        series: the same for all code lengths: method, and what else sets it apart from others on its data.
        dataset, backbone, protocol, method, bits, index, ranking: as ``metrics.json`` has them.
        supervision: ``none`` or ``labels``, or ``features`` where these alone are searched.
        leak: whether queries are in the gallery or in training in any of the runs.
        gallery, queries: numbers of items.
        seeds: ascending.
        runs: one a seed.
        means: of each measure.
        cost: of searching.
        time_s: seconds of each part of a run, mean over seeds.
        codes: figures on the gallery's codes, mean over seeds.
        repeats: per-query values of each measure, one a seed.
    """

    identity: str
    name: str
    series: str
    dataset: str
    backbone: str | None
    protocol: str
    method: str
    bits: int | None
    index: str
    ranking: str
    supervision: str
    leak: bool
    gallery: int
    queries: int
    seeds: tuple[int, ...]
    runs: tuple[Run, ...]
    means: Mapping[str, Mean]
    cost: Cost
    time_s: Mapping[str, float | None]
    codes: Mapping[str, float | None]
    repeats: Mapping[str, Sequence[Repeat]] = field(repr=False)

    @property
    def paths(self) -> list[Path]:
        """The runs' folders."""
        return [run.path for run in self.runs]


@dataclass(frozen=True)
class Group:
    """Configurations that may be compared: one data set, one protocol, and equal values of the keys of ``--by``.

    Attributes:
        title: what they have in common.
        configurations: by the mean of the report's first measure, best first.
        pairs: of each measure, every pair.
        untested: pairs that could not be tested, and why.
        best: of the first measure, one for each supervision.
    """

    title: str
    configurations: tuple[Configuration, ...]
    pairs: Mapping[str, Sequence[Pair]]
    untested: tuple[str, ...]
    best: tuple[Best, ...]


@dataclass(frozen=True)
class Report:
    """Everything that is known of a selection of runs.

    Attributes:
        selection: the runs, and what was left out.
        groups: in the order of data sets, protocols and the values of ``by``.
        definitions: published definitions of the metrics.
        measures: columns of ``per_query.parquet``; the first one ranks.
        by: keys that split groups.
        level: coverage of the intervals.
        resamples: sign patterns of the tests; a fifth as many bootstrap draws.
        seed: of both.
        notes: what else the reader must know.
    """

    selection: Selection
    groups: tuple[Group, ...]
    definitions: DefinitionTable
    measures: tuple[str, ...]
    by: tuple[str, ...]
    level: float
    resamples: int
    seed: int
    notes: tuple[str, ...] = ()

    @property
    def configurations(self) -> list[Configuration]:
        """Those of all groups."""
        return [one for group in self.groups for one in group.configurations]

    def as_dict(self) -> dict[str, Any]:
        """Return the figures as plain numbers and text, for JSON."""
        return {
            "measures": list(self.measures),
            "by": list(self.by),
            "level": self.level,
            "resamples": self.resamples,
            "seed": self.seed,
            "runs": len(self.selection.runs),
            "left_out": self.selection.notes(),
            "notes": list(self.notes),
            "groups": [_group_as_dict(group) for group in self.groups],
            "definitions": self.definitions.as_dict(),
        }


def _group_as_dict(group: Group) -> dict[str, Any]:
    plain = (
        "identity", "name", "series", "dataset", "backbone", "protocol", "method", "bits", "index", "ranking",
        "supervision", "leak", "gallery", "queries",
    )  # fmt: skip
    return {
        "title": group.title,
        "configurations": [
            {
                **{key: getattr(one, key) for key in plain},
                "seeds": list(one.seeds),
                "runs": [str(path) for path in one.paths],
                "means": {measure_name(key): asdict(mean) for key, mean in one.means.items()},
                "cost": asdict(one.cost),
                "time_s": dict(one.time_s),
                "codes": dict(one.codes),
            }
            for one in group.configurations
        ],
        "pairs": {
            measure_name(key): [
                {
                    "first": pair.first,
                    "second": pair.second,
                    "seeds": pair.seeds,
                    "p_value_holm": pair.adjusted,
                    "every_seed": pair.every_seed,
                    **asdict(pair.test),
                }
                for pair in pairs
            ]
            for key, pairs in group.pairs.items()
        },
        "untested": list(group.untested),
        "best": [asdict(best) for best in group.best],
    }
