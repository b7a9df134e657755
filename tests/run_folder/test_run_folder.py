"""A run's folder: whole or unfinished, never shared, and careful with other people's files."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from example_run import METRICS, changed

from lshbench.errors import UsageError
from lshbench.metrics.curves import Curves
from lshbench.run_folder import (
    Run,
    RunFolder,
    RunMetrics,
    atomic_file,
    find_finished,
    finished_runs,
    metrics_schema,
)
from lshbench.types import Neighbors


def validator() -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(metrics_schema())


def result(path: str = "seed", value: object = 0) -> RunMetrics:
    return RunMetrics.from_json(changed(path, value))


# The schema


def test_the_schema_is_itself_valid_and_accepts_the_contract_s_example() -> None:
    jsonschema.Draft202012Validator.check_schema(metrics_schema())
    validator().validate(METRICS)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("reference/cosine", None),
        ("reference/classifier", None),
        ("reference/classifier/outputs", "sigmoid"),
        ("dataset/backbone", None),
        ("search/recall@10", None),
        ("search/qps", None),
        ("codes", dict.fromkeys(METRICS["codes"])),
        ("method/bits", None),
        ("method/chosen_epoch", None),
        ("metrics/nDCG@10", 0.5),
        ("ties/P@10", {"expected": 0.5, "optimistic": 0.6, "pessimistic": 0.4}),
        ("environment/numba", "0.61"),
        ("time_s/reference", 3.0),
        ("protocol/leak", False),
        ("search/point", {"tables": 8, "probes": 4}),
        ("search/latency_ms/with_encoding_p50", 0.5),
    ],
)
def test_the_schema_accepts_what_may_be_null_or_added(path: str, value: object) -> None:
    validator().validate(changed(path, value))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("metrics/mAP", 1.5),
        ("metrics/P@50", KeyError),
        ("metrics/mAP", "0.3"),
        ("method/bits", 0),
        ("method/supervision", "some"),
        ("ranking", "euclidean"),
        ("created", "yesterday"),
        ("command", []),
        ("dataset/classes", 1),
        ("dataset/gallery", 1.5),
        ("time_s/fit", -1.0),
        ("time_s/total", KeyError),
        ("ties/mAP", {"expected": 0.3}),
        ("reference/cosine", {"mAP": 0.1}),
        ("reference/classifier/accuracy", 1.5),
        ("reference/classifier/outputs", "tanh"),
        ("seed", None),
        ("schema_version", 2),
        ("run_id", KeyError),
        ("bits", 64),
        ("search/point", {"probes": -1}),
        ("search/latency_ms/exact_batch", -1),
    ],
)
def test_the_schema_refuses_wrong_missing_and_unknown_values(path: str, value: object) -> None:
    with pytest.raises(jsonschema.ValidationError):
        validator().validate(changed(path, value))


# Claiming


def test_a_claimed_folder_is_refused_to_others_until_it_is_closed(tmp_path: Path) -> None:
    with RunFolder.claim(tmp_path / "run"), pytest.raises(UsageError, match="still going"):
        RunFolder.claim(tmp_path / "run")
    RunFolder.claim(tmp_path / "run").close()


def test_a_finished_folder_is_refused_and_keeps_its_files(tmp_path: Path) -> None:
    with RunFolder.claim(tmp_path) as folder:
        folder.write_array("codes/gallery.npy", np.zeros(3))
        folder.finish(result())
    with pytest.raises(UsageError, match=r"hydra\.run\.dir=.*finished run"):
        RunFolder.claim(tmp_path)
    assert Run.open(tmp_path).metrics.to_json() == METRICS
    assert (tmp_path / "codes/gallery.npy").exists()


def test_what_a_dead_run_left_goes_and_all_else_stays(tmp_path: Path) -> None:
    with RunFolder.claim(tmp_path) as folder:
        folder.write_array("codes/gallery.npy", np.zeros(3))
        folder.write_safetensors("model/state.safetensors", {"a": np.zeros(3)}, {})
        folder.write_text("config.yaml", "bits: 64\n")
        with folder.directory("index") as path:
            (path / "gallery.faiss").write_bytes(b"x")
    (tmp_path / "codes" / ".gallery.npy.01234567.partial").write_bytes(b"half")
    kept = [
        "run.log",
        ".hydra/config.yaml",
        "notes.txt",
        "plots/mine.png",
        "model/README.md",
        "codes/mine.npy",
    ]
    for name in kept:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("mine")
    RunFolder.claim(tmp_path).close()
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {*kept, ".run.lock"}
    assert not (tmp_path / "index").exists()


def test_a_folder_with_somebody_s_files_of_the_same_names_is_refused_untouched(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights.safetensors").write_text("precious")
    for _ in range(2):  # a refusal must not make the next attempt take the files for its own
        with pytest.raises(UsageError, match="no run of lshbench left there"):
            RunFolder.claim(tmp_path)
    assert [path.name for path in tmp_path.rglob("*")] == ["model", "weights.safetensors"]


def test_a_path_that_cannot_be_a_folder_is_wrong_use(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UsageError, match="expected a folder that can be written"):
            RunFolder.claim(path)


def test_of_many_processes_that_start_together_one_gets_the_folder(tmp_path: Path) -> None:
    code = (
        "import sys, time\nfrom pathlib import Path\n"
        "from lshbench.errors import UsageError\nfrom lshbench.run_folder import RunFolder\n"
        "while time.time() < float(sys.argv[2]): pass\n"
        "try:\n    folder = RunFolder.claim(Path(sys.argv[1]))\n"
        "except UsageError:\n    print('refused')\n"
        "else:\n    print('mine', flush=True); sys.stdin.read()\n"
    )
    start = str(time.time() + 1.5)
    arguments = [sys.executable, "-c", code, str(tmp_path / "run"), start]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(arguments, **pipes) for _ in range(4)]
    answers = sorted(process.stdout.readline().strip() for process in processes)
    for process in processes:
        process.communicate()
    assert answers == ["mine", "refused", "refused", "refused"]


def test_discarding_removes_a_folder_of_hydra_s_files_and_no_other(tmp_path: Path) -> None:
    for name in ("refused", "used"):
        (tmp_path / name / ".hydra").mkdir(parents=True)
        (tmp_path / name / ".hydra" / "config.yaml").touch()
        (tmp_path / name / "run.log").touch()
    (tmp_path / "used" / "notes.txt").touch()
    for name in ("refused", "used", "absent"):
        RunFolder.discard(tmp_path / name)
    assert not (tmp_path / "refused").exists()
    assert (tmp_path / "used" / ".hydra" / "config.yaml").exists()


# Dying and failing


@pytest.mark.slow
def test_a_run_killed_at_any_moment_leaves_no_metrics_but_whole_ones(tmp_path: Path) -> None:
    code = (
        f"import sys\nsys.path.append({str(Path(__file__).parents[1])!r})\n"
        "from pathlib import Path\nimport numpy as np\n"
        "from dataclasses import replace\n"
        "from lshbench.run_folder import RunFolder, RunMetrics\n"
        "from example_run import METRICS\n"
        "metrics = replace(RunMetrics.from_json(METRICS), run_id='x' * 200_000)\n"
        "print('ready', flush=True)\n"
        "for number in range(1000):\n"
        "    with RunFolder.claim(Path(sys.argv[1]) / f'{number:04d}') as folder:\n"
        "        folder.write_array('codes/gallery.npy', np.arange(100_000))\n"
        "        folder.finish(metrics)\n"
    )
    randomness = random.Random(0)
    finished = 0
    for attempt in range(8):
        root = tmp_path / str(attempt)
        process = subprocess.Popen([sys.executable, "-c", code, str(root)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(randomness.uniform(0.01, 0.3))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        folders = sorted(root.iterdir()) if root.exists() else []
        for folder in folders:
            if (folder / "metrics.json").exists():
                finished += 1
                assert json.loads((folder / "metrics.json").read_text())["environment"]
                assert len(np.load(folder / "codes/gallery.npy")) == 100_000
        for folder in folders[-1:]:  # the one it died in, unless it was between two
            if not (folder / "metrics.json").exists():
                with RunFolder.claim(folder) as again:
                    again.finish(result())
                assert not list(folder.rglob("*.partial"))
    assert finished > 0


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    def write_and_fail() -> None:
        with atomic_file(tmp_path / "a") as file:
            file.write(b"half")
            raise RuntimeError

    (tmp_path / "a").write_bytes(b"before")
    with pytest.raises(RuntimeError):
        write_and_fail()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"before"}


def test_a_full_disk_is_one_message_that_names_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with RunFolder.claim(tmp_path / "run") as folder:
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(UsageError, match=f"no space left .*{tmp_path / 'run'}"):
            folder.write_array("codes/gallery.npy", np.zeros(3))
        with pytest.raises(UsageError, match="no space left"):
            folder.finish(result())
    assert [path.name for path in (tmp_path / "run").rglob("*") if path.is_file()] == [".run.lock"]


@pytest.mark.parametrize("number", [float("nan"), np.float32("inf"), -float("inf"), np.float64("nan")])
def test_metrics_that_are_not_finite_are_a_defect_named_by_key(tmp_path: Path, number: float) -> None:
    with RunFolder.claim(tmp_path) as folder:
        with pytest.raises(ValueError, match=r"metrics\.mAP is (nan|-?inf)"):
            folder.finish(replace(result(), metrics={**METRICS["metrics"], "mAP": number}))
        assert not (tmp_path / "metrics.json").exists()


def test_numpy_values_become_plain_ones(tmp_path: Path) -> None:
    values = {
        "a": np.int64(3),
        "b": np.float32(0.5),
        "c": np.bool_(True),
        "d": np.arange(2),
        "e": (1, Path("x")),
    }
    with RunFolder.claim(tmp_path) as folder:
        folder.write_json("training.json", values)
        with pytest.raises(TypeError, match="set"):
            folder.write_json("training.json", {"a": {1}})
    read = json.loads((tmp_path / "training.json").read_text())
    assert read == {"a": 3, "b": 0.5, "c": True, "d": [0, 1], "e": [1, "x"]}


# Reading back


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    ids = np.array([[4, 2, -1], [0, -1, -1]])
    neighbors = Neighbors(ids, np.array([[0, 1, np.inf], [2, np.inf, np.inf]], np.float32), np.array([2, 1]))
    curves = Curves(
        recall=np.array([0.0, 1.0]),
        precision=np.array([1.0, 0.5]),
        k=np.array([1, 10]),
        precision_at_k=np.array([0.9, 0.8]),
    )
    config = {"bits": 64, "pca": {"dim": None}, "rate": 1e-5, "name": "été"}
    with RunFolder.claim(tmp_path / "run") as folder:
        folder.write_neighbors(neighbors)
        folder.write_curves(curves)
        folder.write_yaml("config.yaml", config)
        folder.write_array("codes/gallery.npy", np.arange(6, dtype=np.uint8).reshape(3, 2))
        folder.write_training([{"epoch": 1, "loss": 0.5, "validation": None, "terms": {}}], chosen_epoch=1)
        folder.write_per_query(
            queries=np.array([10, 11]),
            labels=np.array([1, 0]),
            measures={"AP": np.array([0.5, np.nan]), "P@10": np.array([0.1, 0.2])},
            neighbors=neighbors,
            right=np.array([[True, False, False], [True, False, False]]),
        )
        folder.finish(result())
    run = Run.open(tmp_path / "run" / "metrics.json")
    assert run.path == tmp_path / "run"
    assert run.config() == config
    np.testing.assert_array_equal(run.neighbors()[0], ids)
    np.testing.assert_array_equal(run.neighbors()[1], neighbors.distances)
    np.testing.assert_array_equal(run.array("codes/gallery.npy"), [[0, 1], [2, 3], [4, 5]])
    assert run.curves().precision_at_k.tolist() == [0.9, 0.8]
    assert run.curves().bit_means is None
    assert run.training()["chosen_epoch"] == 1
    assert run.per_query().to_pydict() == {
        "query": [10, 11],
        "label": [1, 0],
        "AP": [0.5, None],
        "P@10": [0.1, 0.2],
        "candidates": [2, 1],
        "first_hits": [[4, 2], [0]],
        "first_distances": [[0.0, 1.0], [2.0]],
        "first_relevant": [[1, 0], [1]],
    }
    with pytest.raises(UsageError, match=r"holds no codes/queries\.npy"):
        run.array("codes/queries.npy")


def test_several_labels_an_item_are_a_list_in_the_table(tmp_path: Path) -> None:
    none = Neighbors(np.full((3, 10), -1), np.full((3, 10), np.inf, np.float32), np.zeros(3, np.int64))
    labels = np.array([[True, False, True], [False, False, False], [False, True, False]])
    with RunFolder.claim(tmp_path) as folder:
        right = np.zeros((3, 10), bool)
        folder.write_per_query(queries=np.arange(3), labels=labels, measures={}, neighbors=none, right=right)
        folder.finish(result())
    table = Run.open(tmp_path).per_query().to_pydict()
    assert table["label"] == [[0, 2], [], [1]]
    assert table["first_hits"] == [[], [], []]


def test_rows_of_query_settings_come_back_and_unknown_figures_are_none(tmp_path: Path) -> None:
    with RunFolder.claim(tmp_path) as folder:
        folder.write_tradeoff({"probes": np.array([1, 4]), "mAP": np.array([0.5, np.nan])})
        folder.finish(result())
    assert Run.open(tmp_path).tradeoff() == {"probes": [1, 4], "mAP": [0.5, None]}


def test_no_pickle_is_written_or_read(tmp_path: Path) -> None:
    objects = np.array([{"a": 1}], dtype=object)
    with RunFolder.claim(tmp_path) as folder:
        with pytest.raises(ValueError, match="allow_pickle"):
            folder.write_array("codes/gallery.npy", objects)
        with pytest.raises(ValueError, match="allow_pickle"):
            folder.write_npz("curves.npz", {"a": objects})
        folder.finish(result())
    (tmp_path / "codes").mkdir(exist_ok=True)
    np.save(tmp_path / "codes/gallery.npy", objects, allow_pickle=True)
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(UsageError, match=r"codes/gallery.npy is damaged: it holds Python objects"):
        Run.open(tmp_path).array("codes/gallery.npy")


def test_arrays_keep_their_order_and_shape_in_safetensors(tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    arrays = {
        "turned": np.arange(6.0).reshape(2, 3).T,
        "scalar": np.array(3),
        "bits": np.array([True, False]),
    }
    with RunFolder.claim(tmp_path) as folder:
        folder.write_safetensors("model/state.safetensors", arrays, {"method": "fourier"})
    for name, read in load_file(tmp_path / "model/state.safetensors").items():
        np.testing.assert_array_equal(read, arrays[name])
        assert read.shape == arrays[name].shape


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "holds no finished run"),
        ("{", "damaged"),
        ("[]", "damaged"),
        ('{"schema_version": 2}', "schema_version=2: expected 1"),
    ],
)
def test_a_folder_without_a_whole_finished_run_is_refused(
    tmp_path: Path, content: str | None, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    if content is not None:
        (tmp_path / "metrics.json").write_text(content)
    with pytest.raises(UsageError, match=message):
        Run.open(tmp_path)
    assert list(finished_runs(tmp_path)) == []
    assert ("left out: " in caplog.text and message in caplog.text) == (content is not None)
    with pytest.raises(UsageError, match="is no folder"):
        Run.open(tmp_path / "absent")


def test_finished_runs_are_found_by_identity_anywhere_below_a_folder(tmp_path: Path) -> None:
    for name in ("b/x", "a/y/z"):
        with RunFolder.claim(tmp_path / name) as folder:
            folder.finish(result("run_id", f"run of {name}"))
    RunFolder.claim(tmp_path / "a" / "unfinished").close()
    assert [run.path.name for run in finished_runs(tmp_path)] == ["z", "x"]
    assert find_finished(tmp_path, "run of b/x") == tmp_path / "b" / "x"
    assert find_finished(tmp_path, "run of c") is None
    assert find_finished(tmp_path / "absent", "run of b/x") is None
