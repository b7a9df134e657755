"""Comparing run folders."""

from __future__ import annotations

import copy
import hashlib
import importlib.util
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
from lshbench.report.compare import compare, definitions, find_runs

SCRIPT = Path(__file__).parents[2] / "scripts" / "compare_runs.py"
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
    comparison = compare(find_runs([tmp_path]))
    names = [one.name for one in comparison.configurations]
    assert names[0] == "fourier 16 bits"
    assert set(names[1:]) == {"fourier 32 bits", "random_projection 16 bits"}
    best = comparison.configurations[0]
    assert [repeat.seed for repeat in best.repeats] == [0, 1]
    mean = (values + 0.1 + noise[1].mean(axis=0)).mean()
    assert best.interval.mean == pytest.approx(mean)
    assert best.interval.low < mean < best.interval.high
    assert best.supervision == "labels"
    pair = next(pair for pair in comparison.pairs if {pair.first, pair.second} == {names[0], "fourier 32 bits"})
    alone = paired_permutation_test(
        values + 0.1 + noise[1].mean(axis=0), values + 0.001 + noise[2].mean(axis=0), resamples=10_000
    )
    assert pair.test == alone
    np.testing.assert_allclose(
        [pair.adjusted for pair in comparison.pairs],
        holm(np.array([pair.test.p_value for pair in comparison.pairs])),
    )
    assert sum(pair.adjusted < 0.05 for pair in comparison.pairs) == 2


def test_a_run_that_ranks_features_says_so_in_place_of_what_trained_its_method(tmp_path: Path, values) -> None:
    for name in ("kmeans", "fourier"):
        write_run(tmp_path, name, values)
    shown = {one.name: one.supervision for one in compare(find_runs([tmp_path])).configurations}
    assert shown == {"kmeans 16 bits": "features", "fourier 16 bits": "labels"}


def test_queries_are_paired_by_number_not_by_row(tmp_path: Path, values) -> None:
    order = np.random.default_rng(0).permutation(QUERIES)
    write_run(tmp_path, "itq", values)
    write_run(tmp_path, "itq", values[order], queries=1000 + order, bits=32)
    (pair,) = compare(find_runs([tmp_path])).pairs
    assert (pair.test.difference, pair.test.p_value) == (0.0, 1.0)


def test_queries_drawn_by_the_seed_are_paired_within_seeds_that_both_have(tmp_path: Path, values) -> None:
    for seed, shift in ((0, 0), (1, 5000), (2, 9000)):
        numbers = np.arange(QUERIES) + shift
        write_run(tmp_path, "itq", values, seed=seed, queries=numbers)
        if seed:
            write_run(tmp_path, "fourier", values + 0.25, seed=seed, queries=numbers)
    (pair,) = compare(find_runs([tmp_path])).pairs
    assert pair.seeds == "1, 2"
    assert pair.test.pairs == 2 * QUERIES
    assert pair.test.difference == pytest.approx(0.25)


def test_runs_of_different_queries_are_refused(tmp_path: Path, values) -> None:
    write_run(tmp_path, "itq", values)
    write_run(tmp_path, "fourier", values, queries=np.arange(1100, 1100 + QUERIES))
    with pytest.raises(UsageError, match=r"different queries \(200 and 200, 100 in common\)"):
        compare(find_runs([tmp_path]))


def test_runs_of_different_data_sets_with_equal_numbers_are_refused(tmp_path: Path, values) -> None:
    write_run(tmp_path, "itq", values)
    write_run(tmp_path, "fourier", values, labels=np.zeros(QUERIES, np.int64))
    with pytest.raises(UsageError, match="other labels"):
        compare(find_runs([tmp_path]))


def test_items_with_several_labels_can_be_compared(tmp_path: Path, values) -> None:
    labels = [[0, 2]] * (QUERIES - 1) + [[]]
    write_run(tmp_path, "itq", values, labels=labels)
    write_run(tmp_path, "fourier", values + 0.1, labels=labels)
    assert len(compare(find_runs([tmp_path])).pairs) == 1


def test_names_show_the_keys_that_differ_and_no_others(tmp_path: Path, values) -> None:
    write_run(tmp_path, "itq", values, index={"name": "flat"}, ranking="auto")
    write_run(tmp_path, "itq", values, index={"name": "buckets", "tables": 4}, ranking="auto")
    write_run(tmp_path, "itq", values, index={"name": "buckets", "tables": 8}, ranking="auto")
    names = {one.name for one in compare(find_runs([tmp_path])).configurations}
    assert names == {
        "itq 16 bits index=flat",
        "itq 16 bits index=buckets index.tables=4",
        "itq 16 bits index=buckets index.tables=8",
    }


def test_the_same_folder_or_the_same_run_twice_is_one_result(tmp_path: Path, values, caplog) -> None:
    folder = write_run(tmp_path, "itq", values)
    assert len(find_runs([folder, tmp_path, folder])) == 1
    again = write_run(tmp_path, "itq", values)
    (one,) = compare(find_runs([tmp_path])).configurations
    assert [repeat.path for repeat in one.repeats] == [folder]
    assert caplog.messages == [f"{again} repeats {folder} and is left out"]


def test_the_same_run_with_other_figures_is_warned_of(tmp_path: Path, values, caplog) -> None:
    folder = write_run(tmp_path, "itq", values)
    again = write_run(tmp_path, "itq", values / 2)
    assert len(compare(find_runs([tmp_path])).configurations) == 1
    assert caplog.messages == [f"{again} repeats {folder} with OTHER FIGURES and is left out"]


def test_names_tell_equal_settings_apart_by_the_source_or_the_data_that_made_the_figures(
    tmp_path: Path, values
) -> None:
    write_run(tmp_path, "itq", values, source="sha256:0123456789")
    write_run(tmp_path, "itq", values, source="sha256:abcdefabcdef")
    write_run(tmp_path, "itq", values, source="sha256:abcdefabcdef", fingerprint="sha256:22")
    write_run(tmp_path, "fourier", values)
    assert {one.name for one in compare(find_runs([tmp_path])).configurations} == {
        "itq 16 bits source=01234567",
        "itq 16 bits source=abcdefab data=00",
        "itq 16 bits source=abcdefab data=22",
        "fourier 16 bits",
    }


def test_features_without_a_method_stand_under_their_index_s_name(tmp_path: Path, values) -> None:
    write_run(tmp_path, "none", values, bits=None, index={"name": "hnsw"})
    write_run(tmp_path, "itq", values, index={"name": "flat"})
    names = {one.name for one in compare(find_runs([tmp_path])).configurations}
    assert names == {"features index=hnsw", "itq 16 bits index=flat"}


def test_keys_of_an_index_tell_apart_what_has_the_same_one(tmp_path: Path, values) -> None:
    for index in ({"name": "hnsw", "m": 16}, {"name": "buckets", "m": 4}, {"name": "buckets", "m": 8, "bits": 16}):
        write_run(tmp_path, "itq", values, index=index)
    names = {one.name for one in compare(find_runs([tmp_path])).configurations}
    assert names == {
        "itq 16 bits index=hnsw",
        "itq 16 bits index=buckets index.m=4",
        "itq 16 bits index=buckets index.m=8",
    }


def test_wrong_use_is_named(tmp_path: Path, values) -> None:
    folder = write_run(tmp_path, "itq", values)
    with pytest.raises(UsageError, match=r"metric='mAP': expected a column of .*: AP, P@10"):
        compare(find_runs([folder]), "mAP")
    with pytest.raises(UsageError, match="level=95: expected a number between 0 and 1"):
        compare(find_runs([folder]), level=95)
    with pytest.raises(UsageError, match="is no folder"):
        find_runs([tmp_path / "absent"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="holds no finished run"):
        find_runs([tmp_path / "empty"])
    write_run(tmp_path, "fourier", np.where(np.arange(QUERIES) == 3, np.nan, values))
    with pytest.raises(UsageError, match="no value of AP"):
        compare(find_runs([tmp_path]))


@pytest.fixture
def script():
    spec = importlib.util.spec_from_file_location("compare_runs", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_script_prints_tables_and_writes_json(tmp_path: Path, values, script, capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    runs, target = tmp_path / "runs", tmp_path / "comparison.json"
    write_run(runs, "itq", values, leak=True)
    write_run(runs, "fourier", values + 0.1)
    assert script.main([str(runs), "--metric", "P@10", "--json", str(target)]) == 0
    printed = capsys.readouterr().out
    for text in (
        "mean P@10",
        "itq 16 bits (leak)",
        "fourier 16 bits",
        f"{values.mean() + 0.1:.4f}",
        "+0.1000",
        "0.0001 *",
        "queries are in the gallery or in training",
    ):
        assert text in printed
    stored = json.loads(target.read_text())
    assert [one["name"] for one in stored["configurations"]] == ["fourier 16 bits", "itq 16 bits"]
    assert stored["configurations"][1]["leak"] is True
    assert stored["pairs"][0]["difference"] == pytest.approx(0.1)
    assert stored["pairs"][0]["p_value_holm"] == stored["pairs"][0]["p_value"] == pytest.approx(1 / 10_001)


@pytest.fixture
def defined(tmp_path: Path, values) -> Path:
    runs = tmp_path / "runs"
    for seed, mean in ((0, 0.25), (1, 0.75)):
        figures = {"mAP@all/trec": mean, "mAP@1000/hits": 0.5, "mAP@50/hits": 0.25, "precision@radius2": None}
        write_run(runs, "itq", values, seed=seed, leak=True, definitions=figures)
    write_run(runs, "fourier", values, definitions={"mAP@all/trec": 0.9, "mAP@1000/hits": 0.8})
    return runs


def test_definitions_stand_side_by_side_with_their_formulae(defined: Path) -> None:
    table = definitions(find_runs([defined]))
    rows = {row.key: row for row in table.rows}
    assert dict(zip(table.names, table.leaks, strict=True)) == {"itq 16 bits": True, "fourier 16 bits": False}
    itq, fourier = (table.names.index(f"{name} 16 bits") for name in ("itq", "fourier"))
    assert (rows["mAP@all/trec"].values[itq], rows["mAP@all/trec"].values[fourier]) == (0.5, 0.9)
    assert rows["precision@radius2"].values == [None, None]
    assert rows["mAP@50/hits"].values[fourier] is None
    assert "DeepHash-pytorch" in rows["mAP@1000/hits"].published_by
    assert rows["mAP@1000/hits"].formula.endswith("ties in gallery order")


def test_the_script_shows_definitions_once_each_and_their_leaks(
    defined: Path, tmp_path: Path, script, capsys, monkeypatch
) -> None:
    monkeypatch.setenv("COLUMNS", "140")
    target = tmp_path / "definitions.json"
    assert script.main([str(defined), "--definitions", "--json", str(target)]) == 0
    printed = capsys.readouterr().out
    for text in ("mAP@1000/hits", "0.8000", "mAP@k/hits", "divided by", "FIRe", "(leak)", "too good"):
        assert text in printed
    assert printed.count("mAP@k/hits ") == 1
    assert json.loads(target.read_text())["rows"][0]["key"] == "mAP@all/trec"


def test_the_script_ends_with_2_and_one_line_on_wrong_use(tmp_path: Path, script, capsys) -> None:
    assert script.main([str(tmp_path / "absent")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
