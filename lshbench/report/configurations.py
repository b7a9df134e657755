"""Configurations of a report: runs that differ in nothing but the seed, with means, intervals and costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from lshbench.metrics.significance import Interval, bootstrap_interval
from lshbench.report.definitions import by_configuration, mean_or_none
from lshbench.report.repeats import Repeat, same_queries
from lshbench.report.report import Configuration, Cost, Mean, measure_name
from lshbench.report.resampling import crossed_intervals
from lshbench.report.select import Settings, protocol_of, supervision_of
from lshbench.run_folder import Run


def configurations_of(
    runs: Sequence[Run],
    values: Mapping[Path, Mapping[str, Repeat]],
    measures: Sequence[str],
    level: float,
    resamples: int,
    seed: int,
) -> list[Configuration]:
    """Return the configurations of some runs, still without names.

    Args:
        runs: finished ones.
        values: per-query values by folder and measure.
        measures: that every run has.
        level, resamples, seed: of the intervals.
    """
    made = []
    for identity, members in by_configuration(runs).items():
        members.sort(key=lambda run: run.metrics.seed)
        first = members[0].metrics
        repeats = {name: [values[run.path][name] for run in members] for name in measures}
        made.append(
            Configuration(
                identity=identity,
                name="",
                series="",
                dataset=first.dataset.name,
                backbone=first.dataset.backbone,
                protocol=protocol_of(Settings(members[0])),
                method=first.method.name,
                bits=first.method.bits,
                index=first.search.index,
                ranking=first.ranking,
                supervision=supervision_of(members[0]),
                leak=any(run.metrics.protocol.leak for run in members),
                gallery=first.dataset.gallery,
                queries=len(repeats[measures[0]][0].queries),
                seeds=tuple(run.metrics.seed for run in members),
                runs=tuple(members),
                means={},
                cost=_cost(members),
                time_s=_each(members, lambda run: run.metrics.time_s),
                codes=_each(members, _code_figures),
                repeats=repeats,
            )
        )
    intervals = _intervals(made, measures, level, resamples, seed)
    return [
        replace(one, means={name: _mean(one, name, intervals[place, name]) for name in measures})
        for place, one in enumerate(made)
    ]


def _intervals(
    configurations: Sequence[Configuration], measures: Sequence[str], level: float, resamples: int, seed: int
) -> dict[tuple[int, str], Interval]:
    """Return the interval of every configuration, by its place, and measure."""
    intervals: dict[tuple[int, str], Interval] = {}
    crossed: dict[int, list[tuple[tuple[int, str], np.ndarray]]] = {}
    for place, one in enumerate(configurations):
        for name in measures:
            values = [repeat.values for repeat in one.repeats[name]]
            if same_queries(one.repeats[name]):
                crossed.setdefault(len(values[0]), []).append(((place, name), np.stack(values)))
            else:
                intervals[place, name] = bootstrap_interval(values, level=level, resamples=resamples, seed=seed)
    for parts in crossed.values():
        found = crossed_intervals([values for _, values in parts], level=level, resamples=resamples, seed=seed)
        intervals.update(zip((key for key, _ in parts), found, strict=True))
    return intervals


def _mean(one: Configuration, name: str, interval: Interval) -> Mean:
    means = tuple(float(repeat.values.mean()) for repeat in one.repeats[name])
    cosine, classifier, predicted = (
        mean_or_none([(run.metrics.reference.figures(reference) or {}).get(measure_name(name)) for run in one.runs])
        for reference in ("cosine", "classifier", "predicted_class")
    )
    steps = [None if run.metrics.loss is None else run.metrics.loss.codes for run in one.runs]
    codes = [None if step is None else step.get(measure_name(name)) for step in steps]
    spread = float(np.std(means, ddof=1)) if len(means) > 1 else None
    return Mean(interval, means, spread, cosine, mean_or_none(codes), classifier, predicted)


def _cost(runs: Sequence[Run]) -> Cost:
    def mean(figure: Callable[[Run], float | None]) -> float | None:
        return mean_or_none([figure(run) for run in runs])

    def a_second(milliseconds: float | None) -> float | None:
        return 1e3 / milliseconds if milliseconds else None

    def per_item(run: Run, size: int | None) -> float | None:
        return None if size is None else size / run.metrics.dataset.gallery

    return Cost(
        candidates=mean(lambda run: run.metrics.search.candidates_mean),
        candidates_fraction=mean(lambda run: run.metrics.search.candidates_fraction),
        qps=mean(lambda run: run.metrics.search.qps),
        qps_with_encoding=mean(lambda run: a_second(run.metrics.search.latency_ms.get("with_encoding_batch"))),
        latency_p95_ms=mean(lambda run: run.metrics.search.latency_ms["p95"]),
        latency_with_encoding_p95_ms=mean(lambda run: run.metrics.search.latency_ms.get("with_encoding_p95")),
        busy=any(run.metrics.environment.get("busy") for run in runs),
        bytes_per_item=mean(lambda run: run.metrics.memory.bytes_per_item),
        code_bytes_per_item=mean(lambda run: per_item(run, run.metrics.memory.code_bytes)),
        index_bytes_per_item=mean(lambda run: per_item(run, run.metrics.memory.index_bytes)),
        feature_bytes_per_item=mean(lambda run: per_item(run, run.metrics.memory.feature_bytes)),
        recall_at_10_cosine=mean(lambda run: run.metrics.search.recall_at_10_cosine),
        peak_memory_bytes=mean(lambda run: run.metrics.memory.peak_rss_bytes),
    )


def _code_figures(run: Run) -> dict[str, float | None]:
    codes = run.metrics.codes
    return {
        "bit_balance": codes.bit_balance,
        "bit_correlation": codes.bit_correlation,
        "constant_bits": codes.constant_bits,
        "entropy_bits": codes.entropy_bits,
        "code_entropy_bits": codes.code_entropy_bits,
        "distinct_codes": codes.distinct_codes,
        "largest_bucket": codes.buckets.largest if codes.buckets else None,
        "quantisation_loss": codes.quantisation_loss,
    }


def _each(runs: Sequence[Run], figures: Callable[[Run], Mapping[str, float | None]]) -> dict[str, float | None]:
    found = [figures(run) for run in runs]
    return {
        key: mean_or_none([one.get(key) for one in found]) for key in dict.fromkeys(k for one in found for k in one)
    }
