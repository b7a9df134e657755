"""The report of run folders: groups, means, intervals, tests, names, and what is left out."""

from __future__ import annotations

import copy
import csv
import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import yaml
from example_run import METRICS

from lshbench.errors import UsageError
from lshbench.metrics.significance import holm, paired_permutation_test
from lshbench.report.build import build_report
from lshbench.report.definitions import definitions
from lshbench.report.render import csv_text
from lshbench.report.report import Group, Report
from lshbench.report.select import find, where

QUERIES = 200


def write_run(
    root: Path,
    name: str,
    average_precision,
    *,
    seed: int = 0,
    queries=None,
    labels=None,
    leak: bool = False,
    definitions: dict[str, float | None] | None = None,
    bits: int | None = 16,
    source: str = "sha256:11",
    fingerprint: str = "sha256:00",
    **settings,
) -> Path:
    folder = root / f"{name}-{len(list(root.iterdir())) if root.is_dir() else 0}"
    folder.mkdir(parents=True)
    numbers = np.arange(1000, 1000 + len(average_precision)) if queries is None else np.asarray(queries)
    labels = numbers % 10 if labels is None else labels
    config = {
        "bits": bits,
        "seed": seed,
        "output": str(root),
        "threads": seed + 1,
        "method": {"name": name, "seed": seed, "_target_": f"lshbench.methods.{name}.Class"},
        "dataset": {"name": "digits"},
        **settings,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    columns = {"query": numbers, "label": labels, "AP": average_precision, "P@10": average_precision}
    pyarrow.parquet.write_table(pyarrow.table(columns), folder / "per_query.parquet")
    configuration = {key: value for key, value in config.items() if key not in ("seed", "threads", "output")}
    del configuration["method"]["seed"]
    identity = hashlib.sha256(json.dumps([configuration, source, fingerprint]).encode()).hexdigest()
    metrics = copy.deepcopy(METRICS) | {
        "seed": seed,
        "run_id": f"{identity}, {seed}",
        "configuration_id": identity,
        "source": source,
        "definitions": definitions or {},
    }
    metrics["metrics"]["mAP"] = float(np.mean(average_precision))
    metrics["method"] |= {"name": name, "bits": bits, "supervision": "labels" if name == "fourier" else "none"}
    metrics["search"]["ranks"] = "features" if name == "kmeans" else "method"
    metrics["protocol"]["leak"] = leak
    metrics["dataset"]["fingerprint"] = fingerprint
    (folder / "metrics.json").write_text(json.dumps(metrics))
    return folder


def report_of(*folders: Path, by: tuple[str, ...] = (), **keywords) -> Report:
    return build_report(find(folders), by=by, **keywords)


def compared(*folders: Path, **keywords) -> Group:
    (group,) = report_of(*folders, **keywords).groups
    return group


@pytest.fixture
def values() -> np.ndarray:
    return np.random.default_rng(0).random(QUERIES)


def test_seeds_of_one_configuration_are_repeats_and_pairs_are_tested_and_corrected(tmp_path: Path, values) -> None:
    generator = np.random.default_rng(1)
    noise = generator.normal(0, 0.05, (3, 2, QUERIES))
    for seed in (0, 1):
        write_run(tmp_path, "random_projection", values + noise[0, seed], seed=seed)
        write_run(tmp_path, "fourier", values + 0.1 + noise[1, seed], seed=seed)
        write_run(tmp_path, "fourier", values + 0.001 + noise[2, seed], seed=seed, bits=32)
    comparison = compared(tmp_path)
    names = [one.name for one in comparison.configurations]
    assert names[0] == "fourier 16 bits"
    assert set(names[1:]) == {"fourier 32 bits", "random_projection 16 bits"}
    best = comparison.configurations[0]
    assert best.seeds == (0, 1)
    mean = (values + 0.1 + noise[1].mean(axis=0)).mean()
    interval = best.means["AP"].interval
    assert interval.mean == pytest.approx(mean)
    assert interval.low < mean < interval.high
    assert best.supervision == "labels"
    pairs = comparison.pairs["AP"]
    pair = next(pair for pair in pairs if {pair.first, pair.second} == {names[0], "fourier 32 bits"})
    alone = paired_permutation_test(
        values + 0.1 + noise[1].mean(axis=0), values + 0.001 + noise[2].mean(axis=0), resamples=10_000
    )
    assert pair.test == alone
    np.testing.assert_allclose([pair.adjusted for pair in pairs], holm(np.array([pair.test.p_value for pair in pairs])))
    assert sum(pair.significant for pair in pairs) == 2
    assert [(one.supervision, one.name, one.beaten, one.others) for one in comparison.best] == [
        ("labels", "fourier 16 bits", 1, 1),
        ("none", "random_projection 16 bits", 0, 0),
    ]


def test_a_configuration_that_leads_on_average_but_not_with_every_seed_beats_no_other(tmp_path: Path, values) -> None:
    for seed, shift in ((0, 0.2), (1, -0.01)):
        write_run(tmp_path, "itq", values, seed=seed)
        write_run(tmp_path, "itq", values + shift, seed=seed, bits=32)
    group = compared(tmp_path)
    (pair,) = group.pairs["AP"]
    assert (pair.significant, pair.every_seed) == (True, False)
    assert [(best.name, best.beaten) for best in group.best] == [("itq 32 bits", 0)]


def test_a_run_that_ranks_features_says_so_in_place_of_what_trained_its_method(tmp_path: Path, values) -> None:
    for name in ("kmeans", "fourier"):
        write_run(tmp_path, name, values)
    shown = {one.name: one.supervision for one in compared(tmp_path).configurations}
    assert shown == {"kmeans 16 bits": "features", "fourier 16 bits": "labels"}


def test_queries_are_paired_by_number_not_by_row(tmp_path: Path, values) -> None:
    order = np.random.default_rng(0).permutation(QUERIES)
    write_run(tmp_path, "itq", values)
    write_run(tmp_path, "itq", values[order], queries=1000 + order, bits=32)
    (pair,) = compared(tmp_path).pairs["AP"]
    assert (pair.test.difference, pair.test.p_value) == (0.0, 1.0)


def test_queries_drawn_by_the_seed_are_paired_within_seeds_that_both_have(tmp_path: Path, values) -> None:
    for seed, shift in ((0, 0), (1, 5000), (2, 9000)):
        numbers = np.arange(QUERIES) + shift
        write_run(tmp_path, "itq", values, seed=seed, queries=numbers)
        if seed:
            write_run(tmp_path, "fourier", values + 0.25, seed=seed, queries=numbers)
    (pair,) = compared(tmp_path).pairs["AP"]
    assert pair.seeds == "1, 2"
    assert pair.test.pairs == 2 * QUERIES
    assert pair.test.difference == pytest.approx(0.25)


def test_runs_of_different_queries_are_not_tested_and_that_is_said(tmp_path: Path, values) -> None:
    write_run(tmp_path, "itq", values)
    write_run(tmp_path, "fourier", values, queries=np.arange(1100, 1100 + QUERIES))
    group = compared(tmp_path)
    assert not group.pairs["AP"]
    (reason,) = group.untested
    assert "different queries (200 and 200, 100 in common)" in reason


def test_runs_of_different_data_sets_with_equal_numbers_are_not_tested(tmp_path: Path, values) -> None:
    write_run(tmp_path, "itq", values)
    write_run(tmp_path, "fourier", values, labels=np.zeros(QUERIES, np.int64))
    group = compared(tmp_path)
    assert not group.pairs["AP"]
    assert "other labels" in group.untested[0]


def test_items_with_several_labels_can_be_compared(tmp_path: Path, values) -> None:
    labels = [[0, 2]] * (QUERIES - 1) + [[]]
    write_run(tmp_path, "itq", values, labels=labels)
    write_run(tmp_path, "fourier", values + 0.1, labels=labels)
    assert len(compared(tmp_path).pairs["AP"]) == 1


def test_names_show_the_keys_that_differ_and_no_others(tmp_path: Path, values) -> None:
    write_run(tmp_path, "itq", values, index={"name": "flat"}, ranking="auto")
    write_run(tmp_path, "itq", values, index={"name": "buckets", "tables": 4}, ranking="auto")
    write_run(tmp_path, "itq", values, index={"name": "buckets", "tables": 8}, ranking="auto")
    names = {one.name for one in compared(tmp_path).configurations}
    assert names == {
        "itq 16 bits index=flat",
        "itq 16 bits index=buckets index.tables=4",
        "itq 16 bits index=buckets index.tables=8",
    }


def test_the_same_folder_or_the_same_run_twice_is_one_result(tmp_path: Path, values) -> None:
    folder = write_run(tmp_path, "itq", values)
    assert len(find([folder, tmp_path, folder]).runs) == 1
    again = write_run(tmp_path, "itq", values)
    (one,) = compared(tmp_path).configurations
    assert one.paths == [folder]
    assert find([tmp_path]).notes() == [f"{again} repeats {folder} and is left out"]
    assert find([tmp_path]).counts() == "1 finished run, 1 repeated"


def test_the_same_run_with_other_figures_is_warned_of(tmp_path: Path, values) -> None:
    folder = write_run(tmp_path, "itq", values)
    again = write_run(tmp_path, "itq", values / 2)
    assert len(compared(tmp_path).configurations) == 1
    assert find([tmp_path]).notes() == [f"{again} repeats {folder} with OTHER FIGURES and is left out"]


def test_names_tell_equal_settings_apart_by_the_source_or_the_data_that_made_the_figures(
    tmp_path: Path, values
) -> None:
    write_run(tmp_path, "itq", values, source="sha256:0123456789")
    write_run(tmp_path, "itq", values, source="sha256:abcdefabcdef")
    write_run(tmp_path, "itq", values, source="sha256:abcdefabcdef", fingerprint="sha256:22")
    write_run(tmp_path, "fourier", values)
    titles = {group.title: {one.name for one in group.configurations} for group in report_of(tmp_path).groups}
    assert titles == {
        "cifar100_images (data 00), protocol full": {
            "itq 16 bits source=01234567",
            "itq 16 bits source=abcdefab",
            "fourier 16 bits",
        },
        "cifar100_images (data 22), protocol full": {"itq 16 bits"},
    }


def test_features_without_a_method_stand_under_their_index_s_name(tmp_path: Path, values) -> None:
    write_run(tmp_path, "none", values, bits=None, index={"name": "hnsw"})
    write_run(tmp_path, "itq", values, index={"name": "flat"})
    names = {one.name for one in compared(tmp_path).configurations}
    assert names == {"features index=hnsw", "itq 16 bits index=flat"}


def test_keys_of_an_index_tell_apart_what_has_the_same_one(tmp_path: Path, values) -> None:
    for index in ({"name": "hnsw", "m": 16}, {"name": "buckets", "m": 4}, {"name": "buckets", "m": 8, "bits": 16}):
        write_run(tmp_path, "itq", values, index=index)
    names = {one.name for one in compared(tmp_path).configurations}
    assert names == {
        "itq 16 bits index=hnsw",
        "itq 16 bits index=buckets index.m=4",
        "itq 16 bits index=buckets index.m=8",
    }


def test_wrong_use_is_named(tmp_path: Path, values) -> None:
    folder = write_run(tmp_path, "itq", values)
    with pytest.raises(UsageError, match=r"metric='mAP': expected a column of .*: AP, P@10"):
        report_of(folder, metric="mAP")
    with pytest.raises(UsageError, match="level=95: expected a number between 0 and 1"):
        report_of(folder, level=95)
    with pytest.raises(UsageError, match="is no folder"):
        find([tmp_path / "absent"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="holds no finished run"):
        find([tmp_path / "empty"])
    with pytest.raises(UsageError, match="expected key=value"):
        where(find([folder]), ["itq"])
    with pytest.raises(UsageError, match="--where metod: no run has such a key; expected one such as method"):
        where(find([folder]), ["metod=itq"])
    with pytest.raises(UsageError, match="--where bits=64: no run has it; there are 16"):
        where(find([folder]), ["bits=64"])
    with pytest.raises(UsageError, match="--by bist: no run has such a key; expected one such as bits"):
        report_of(folder, by=("bist",))


def test_a_run_without_all_its_values_is_damaged_and_named(tmp_path: Path, values) -> None:
    whole = write_run(tmp_path, "itq", values)
    missing = write_run(tmp_path, "fourier", np.where(np.arange(QUERIES) == 3, np.nan, values))
    cut = write_run(tmp_path, "itq", values, bits=32)
    (cut / "per_query.parquet").write_bytes((cut / "per_query.parquet").read_bytes()[:-20])
    torn = write_run(tmp_path, "itq", values, bits=64)
    (torn / "metrics.json").write_text('{"schema_version": 1,')
    begun = write_run(tmp_path, "itq", values, bits=8)
    (begun / "metrics.json").unlink()
    (begun / ".run.lock").touch()
    selection = report_of(tmp_path).selection
    assert [run.path for run in selection.runs] == [whole]
    assert {path for path, _ in selection.damaged} == {missing, cut, torn}
    assert selection.unfinished == (begun,)
    assert selection.counts() == "1 finished run, 3 damaged, 1 not finished"
    assert all(str(path) in " ".join(selection.notes()) for path in (missing, cut, torn, begun))


def test_filters_take_short_names_and_dotted_keys_and_count_what_they_leave_out(tmp_path: Path, values) -> None:
    write_run(tmp_path, "itq", values, training={"epochs": 5})
    write_run(tmp_path, "itq", values, training={"epochs": 7}, seed=1)
    write_run(tmp_path, "fourier", values, bits=32)
    found = find([tmp_path])

    def chosen(*conditions: str) -> list[tuple[str, int]]:
        runs = where(found, conditions).runs
        return [(run.metrics.method.name, run.metrics.seed) for run in runs]

    assert chosen("method=itq", "seed=1") == [("itq", 1)]
    assert len(chosen("bits=16,32")) == 3
    assert chosen("training.epochs=5") == [("itq", 0)]
    assert chosen("supervision=labels") == [("fourier", 0)]
    assert chosen("search.qps=1000") == chosen("index=flat") == chosen()
    assert where(found, ["bits=32"]).counts() == "1 finished run, 2 left out by filters"


def test_groups_are_of_one_data_set_protocol_and_code_length_or_what_by_says(tmp_path: Path, values) -> None:
    for bits in (8, 16):
        for ranking in ("a", "b"):
            write_run(tmp_path, "itq", values, bits=bits, index={"name": ranking})
    assert [group.title for group in report_of(tmp_path, by=("bits",)).groups] == [
        "cifar100_images, protocol full, 8 bits",
        "cifar100_images, protocol full, 16 bits",
    ]
    titles = [group.title for group in report_of(tmp_path, by=("bits", "index.name")).groups]
    assert titles[0] == "cifar100_images, protocol full, 8 bits, index.name=a"
    assert len(titles) == 4


def holm_by_hand(p_values: list[float]) -> list[float]:
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, p_values[place] * (len(p_values) - rank)))
        adjusted[place] = highest
    return adjusted


def sign_flips_by_hand(difference: np.ndarray, resamples: int, seed: int) -> float:
    """The test with random signs, one pattern after the other, by the same draws."""
    width = -(-len(difference) // 8)
    drawn = np.frombuffer(np.random.default_rng(seed).bytes(resamples * width), np.uint8).reshape(resamples, width)
    count, true = 0, abs(difference.sum())
    for pattern in drawn:
        flipped = np.unpackbits(pattern)[: len(difference)]
        count += abs(np.where(flipped, -difference, difference).sum()) >= true * (1 - 1e-12)
    return (1 + count) / (1 + resamples)


@pytest.mark.parametrize("queries", [12, QUERIES])
def test_every_mean_interval_and_p_value_of_the_csv_is_what_scipy_and_numpy_give(
    tmp_path: Path, values, queries: int
) -> None:
    from scipy import stats

    resamples, level, seed = 1000, 0.9, 5
    noise = np.random.default_rng(2).normal(0, 0.1, (3, 2, queries))
    folders: dict[tuple[str, int], list[Path]] = {}
    for place, (name, bits) in enumerate([("itq", 16), ("fourier", 16), ("random_projection", 16)]):
        for repeat in (0, 1):
            own = values[:queries] + 0.02 * place + noise[place, repeat]
            folders.setdefault((f"{name} {bits} bits", bits), []).append(
                write_run(tmp_path, name, own, seed=repeat, bits=bits)
            )
    report = build_report(find([tmp_path]), level=level, resamples=resamples, seed=seed)
    rows = list(csv.DictReader(io.StringIO(csv_text(report))))
    tables = {
        name: [pyarrow.parquet.read_table(path / "per_query.parquet") for path in paths]
        for (name, _), paths in folders.items()
    }
    measures = {"mAP": "AP", "P@10": "P@10"}
    means = [row for row in rows if row["record"] == "mean"]
    tests = [row for row in rows if row["record"] == "test"]
    assert (len(means), len(tests)) == (6, 6)
    for row in means:
        own = np.array([table[measures[row["measure"]]].to_numpy() for table in tables[row["configuration"]]])
        drawn = np.random.default_rng(seed).integers(queries, size=(resamples // 5, queries))
        times = np.random.default_rng([seed, 2]).multinomial(2, [0.5, 0.5], resamples // 5)
        samples = [(own[:, rows].mean(axis=1) * weights).sum() / 2 for rows, weights in zip(drawn, times, strict=True)]
        expected = [own.mean(), *stats.mstats.mquantiles(samples, [0.05, 0.95], alphap=1, betap=1)]
        np.testing.assert_allclose([float(row[key]) for key in ("mean", "low", "high")], expected, rtol=0, atol=1e-9)
        assert float(row["spread"]) == pytest.approx(stats.tstd(own.mean(axis=1)), abs=1e-9)
    for name, column in measures.items():
        of_measure = [row for row in tests if row["measure"] == name]
        p_values = []
        for row in of_measure:
            sides = [
                np.mean([table[column].to_numpy() for table in tables[row[side]]], axis=0)
                for side in ("configuration", "against")
            ]
            difference = sides[0] - sides[1]
            assert float(row["difference"]) == pytest.approx(difference.mean(), abs=1e-9)
            if queries <= 18:
                exact = stats.permutation_test(sides, lambda a, b: np.mean(a - b), permutation_type="samples")
                p_values.append(float(exact.pvalue))
            else:
                p_values.append(sign_flips_by_hand(difference, resamples, seed))
            assert row["exact"] == str(queries <= 18).lower()
        np.testing.assert_allclose([float(row["p_value"]) for row in of_measure], p_values, rtol=0, atol=1e-9)
        corrected = [float(row["p_value_holm"]) for row in of_measure]
        np.testing.assert_allclose(corrected, holm_by_hand(p_values), rtol=0, atol=1e-9)


def test_the_command_prints_tables_and_writes_json(tmp_path: Path, values, lshbench) -> None:
    runs, target = tmp_path / "runs", tmp_path / "comparison.json"
    write_run(runs, "itq", values, leak=True)
    write_run(runs, "fourier", values + 0.1)
    done = lshbench("report", "runs", "--metric", "P@10", "--json", str(target), env={"COLUMNS": "120"})
    for text in (
        "P@10",
        "itq 16 bits (leak)",
        "fourier 16 bits",
        f"{values.mean() + 0.1:.4f}",
        "+0.1000",
        "0.0001 *",
        "queries are in the gallery or in training",
        "2 finished runs.",
    ):
        assert text in done.stdout
    (group,) = json.loads(target.read_text())["groups"]
    assert [one["name"] for one in group["configurations"]] == ["fourier 16 bits", "itq 16 bits"]
    assert group["configurations"][1]["leak"] is True
    (pair,) = group["pairs"]["P@10"]
    assert pair["difference"] == pytest.approx(0.1)
    assert pair["p_value_holm"] == pair["p_value"] == pytest.approx(1 / 10_001)


@pytest.mark.parametrize("columns", [80, 120])
def test_no_figure_is_cut_off_on_a_narrow_terminal(tmp_path: Path, values, columns: int) -> None:
    from rich.console import Console

    from lshbench.report.render import print_report

    write_run(tmp_path, "random_projection", values)
    write_run(tmp_path, "fourier", values + 0.1)
    stream = io.StringIO()
    report = report_of(tmp_path, by=("bits",))
    print_report(report, Console(file=stream, width=columns))
    for one in report.configurations:
        interval = one.means["AP"].interval
        assert f"{interval.mean:.4f}" in stream.getvalue()
        assert f"{interval.low:.4f}-{interval.high:.4f}" in stream.getvalue()
    assert max(map(len, stream.getvalue().splitlines())) <= columns


@pytest.mark.parametrize("format", ["csv", "markdown", "latex"])
def test_every_format_names_the_configurations_and_their_figures(tmp_path: Path, values, lshbench, format: str) -> None:
    write_run(tmp_path / "runs", "random_projection", values)
    write_run(tmp_path / "runs", "fourier", values + 0.1)
    printed = lshbench("report", "runs", "--format", format).stdout
    figure = repr(float(np.mean(values + 0.1))) if format == "csv" else f"{values.mean() + 0.1:.4f}"
    assert figure in printed
    assert {"latex": r"random\_projection 16 bits & none"}.get(format, "random_projection 16 bits") in printed


@pytest.fixture
def defined(tmp_path: Path, values) -> Path:
    runs = tmp_path / "runs"
    for seed, mean in ((0, 0.25), (1, 0.75)):
        figures = {"mAP@all/trec": mean, "mAP@1000/hits": 0.5, "mAP@50/hits": 0.25, "precision@radius2": None}
        write_run(runs, "itq", values, seed=seed, leak=True, definitions=figures)
    write_run(runs, "fourier", values, definitions={"mAP@all/trec": 0.9, "mAP@1000/hits": 0.8})
    return runs


def test_definitions_stand_side_by_side_with_their_formulae(defined: Path) -> None:
    table = definitions(find([defined]).runs)
    rows = {row.key: row for row in table.rows}
    assert dict(zip(table.names, table.leaks, strict=True)) == {"itq 16 bits": True, "fourier 16 bits": False}
    itq, fourier = (table.names.index(f"{name} 16 bits") for name in ("itq", "fourier"))
    assert (rows["mAP@all/trec"].values[itq], rows["mAP@all/trec"].values[fourier]) == (0.5, 0.9)
    assert rows["precision@radius2"].values == [None, None]
    assert rows["mAP@50/hits"].values[fourier] is None
    assert "DeepHash-pytorch" in rows["mAP@1000/hits"].published_by
    assert rows["mAP@1000/hits"].formula.endswith("ties in gallery order")


def test_the_command_shows_definitions_once_each_and_their_leaks(defined: Path, tmp_path: Path, lshbench) -> None:
    target = tmp_path / "definitions.json"
    done = lshbench("report", "runs", "--definitions", "--json", str(target), env={"COLUMNS": "140"})
    for text in ("mAP@1000/hits", "0.8000", "mAP@k/hits", "divided by", "FIRe", "(leak)", "too good"):
        assert text in done.stdout
    assert done.stdout.count("mAP@k/hits ") == 1
    assert json.loads(target.read_text())["rows"][0]["key"] == "mAP@all/trec"


def test_the_command_ends_with_2_and_one_line_on_wrong_use(lshbench) -> None:
    done = lshbench("report", "absent", check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1


def test_runs_of_other_numbers_of_items_are_not_compared(tmp_path: Path, values) -> None:
    write_run(tmp_path, "itq", values)
    write_run(tmp_path, "csq", values + 0.1, dataset={"name": "digits", "max_gallery": 500})
    titles = [group.title for group in report_of(tmp_path, by=("bits",)).groups]
    assert titles == [
        "cifar100_images, protocol full, 16 bits",
        "cifar100_images, protocol full, at most 500 gallery items, 16 bits",
    ]
