"""Damaged run folders and those of strangers: refused in one message, or the right answers; never code of theirs."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from lshbench.errors import UsageError
from lshbench.run_folder import Run
from lshbench.runtime.own import own_key
from lshbench.search.searcher import Searcher
from tests.command import run_code
from tests.run_damage import refit

PROGRAM = """
import json, resource, shutil, signal, sys
from pathlib import Path
import numpy as np
from lshbench.errors import UsageError
from lshbench.run_folder.contents import MANIFEST
from lshbench.run_folder.manifest import Manifest
from lshbench.runtime.own import own_key
from lshbench.search.searcher import Searcher
from tests.run_damage import refit

runs, work, seed, count = json.loads(%r)
resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))  # of address space: libraries take 5 GiB of it

def answers(folder):
    searcher = Searcher.open(folder, device="cpu")
    dim = searcher.run.metrics.dataset.dim
    x = np.random.default_rng(0).normal(size=(3, dim)).astype(np.float32)
    found = searcher.search_vectors(x, 5)
    hits = [hit for one in found for hit in one.hits]
    return [(hit.row, hit.item, hit.name, hit.label, round(float(hit.distance), 4)) for hit in hits]

def damage(path, generator):
    content = bytearray(path.read_bytes())
    kind = ("flip", "cut", "zero", "extend", "other", "gone")[generator.integers(6)]
    place = int(generator.integers(len(content)))
    if kind == "flip":
        content[place] ^= 1 << int(generator.integers(8))
    elif kind == "cut":
        del content[place:]
    elif kind == "zero":
        content[place : place + 64] = bytes(len(content[place : place + 64]))
    elif kind == "extend":
        content += bytes(generator.integers(0, 256, 40, np.uint8))
    elif kind == "other":
        content = bytearray(b"\\x93NUMPY, or so it says")
    if kind == "gone":
        path.unlink()
    else:
        path.write_bytes(content)
    return kind

generator = np.random.default_rng(seed)
right = {run: answers(Path(run)) for run in runs}
for number in range(count):
    run = runs[number %% len(runs)]
    folder = Path(work, "damaged")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(run, folder)
    names = sorted(name for name in Manifest.read(folder).entries if not name.startswith(("plots/", "run.log")))
    names.append(MANIFEST)
    name = names[generator.integers(len(names))]
    before = (folder / name).read_bytes()
    kind = damage(folder / name, generator)
    after = (folder / name).read_bytes() if (folder / name).exists() else None
    fitted = bool(generator.integers(2)) and kind != "gone" and name != MANIFEST
    if fitted:
        refit(folder, own_key())
    print(json.dumps([number, Path(run).name, name, kind, fitted]), end=" ", flush=True)
    signal.alarm(60)
    try:
        found = answers(folder)
    except UsageError as error:
        outcome = "refused" if "\\n" not in str(error) else f"several lines: {error}"
    except BaseException as error:
        outcome = f"{type(error).__name__}: {error}"
    else:
        outcome = "right" if found == right[run] else "other"
    signal.alarm(0)
    # With a manifest that fits it is another run, with answers of its own.
    print(outcome if outcome != "other" or not fitted or before == after else "refused", flush=True)
"""


def test_a_damaged_run_is_refused_or_answers_as_before(runs: dict[str, Path], tmp_path: Path) -> None:
    count = 30
    arguments = json.dumps([[str(path) for path in runs.values()], str(tmp_path), 0, count])
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": root}
    done = run_code(f"import sys; sys.path.insert(0, {root!r})\n" + PROGRAM % arguments, tmp_path, environment)
    lines = done.stdout.splitlines()
    assert done.returncode == 0, f"{lines[-1:]}\n{done.stderr[-3000:]}"
    assert len(lines) == count
    assert [line for line in lines if not line.endswith(("] refused", "] right"))] == []
    assert sum(line.endswith("] refused") for line in lines) > count / 3


def stranger(runs: dict[str, Path], folder: Path, name: str = "random_projection", **changes: object) -> Path:
    """Copy a run as one that was made elsewhere, with keys of its configuration changed."""
    shutil.copytree(runs[name], folder)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    for key, value in changes.items():
        group, _, name = key.partition("__")
        (config[group] if name else config)[name or group] = value
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    refit(folder)
    return folder


@pytest.mark.parametrize("file", ["config.yaml", "model/model.json"])
def test_a_strangers_class_is_refused_before_it_is_imported(
    runs: dict[str, Path], tmp_path: Path, monkeypatch, file: str
) -> None:
    (tmp_path / "theirs.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    for target in ("theirs.Method", "os.system", "lshbench.commands.run.main"):
        folder = stranger(runs, tmp_path / target)
        content = yaml.safe_load((folder / file).read_text())
        content["method"]["_target_"] = target
        (folder / file).write_text(json.dumps(content))
        refit(folder)
        with pytest.raises(UsageError, match=r"method\._target_=.*expected a class of lshbench.*--trust"):
            Searcher.open(folder)
    if file == "model/model.json":  # what a system is made from
        with pytest.raises(SystemExit, match="imported"):
            Searcher.open(tmp_path / "theirs.Method", trust=True)


def test_a_stranger_s_run_answers_by_itself_and_reaches_for_nothing_else(
    runs: dict[str, Path], tmp_path: Path, monkeypatch
) -> None:
    away = tmp_path / "away"
    folder = stranger(runs, tmp_path / "run", cache=str(away))
    searcher = Searcher.open(folder)
    dim = searcher.run.metrics.dataset.dim
    assert len(searcher.search_vectors(np.ones((1, dim), np.float32), 3)[0].hits) == 3
    with pytest.raises(UsageError, match=r"was not made here.*--trust"):
        _ = searcher.dataset
    assert not away.exists()
    assert not Run.open(folder).is_sealed_by(own_key())


def test_data_that_the_user_names_are_used_and_nothing_else_that_the_run_names(
    runs: dict[str, Path], tmp_path: Path
) -> None:
    data, away = runs["compared"].parent / "features.npz", tmp_path / "away"
    folder = stranger(runs, tmp_path / "run", "compared", cache=str(away), dataset__path="/no/such/place.npz")
    vectors = np.ones((1, 8), np.float32)
    with pytest.raises(UsageError, match=r"its index compares features.*--trust.*, or --data PATH"):
        Searcher.open(folder)
    expected = Searcher.open(runs["compared"]).search_vectors(vectors, 3)[0].hits
    found = Searcher.open(folder, data=data).search_vectors(vectors, 3)[0].hits
    assert [(hit.row, hit.distance) for hit in found] == [(hit.row, hit.distance) for hit in expected]
    assert not away.exists()

    with np.load(data) as arrays:
        np.savez(tmp_path / "other.npz", features=arrays["features"] + 1, labels=arrays["labels"])
    with pytest.raises(UsageError, match="has changed since the run"):
        Searcher.open(folder, data=tmp_path / "other.npz")
    with pytest.raises(UsageError, match="it is not there"):
        Searcher.open(folder, data=tmp_path / "nothing.npz")
    apart = stranger(runs, tmp_path / "apart", "compared", dataset__query="/etc/passwd")
    with pytest.raises(UsageError, match=r"features is found by dataset\.query \(--trust uses it\)"):
        Searcher.open(apart, data=data)
    with pytest.raises(UsageError, match=r"digits is of a kind that has no dataset\.path"):
        Searcher.open(stranger(runs, tmp_path / "digits"), data=data)
    evil = stranger(runs, tmp_path / "evil", "compared", dataset___target_="evil.Source")
    with pytest.raises(UsageError, match="expected a class of lshbench"):
        Searcher.open(evil, data=data)
    timm = {"backbone___target_": "lshbench.features.backbone.TimmBackbone", "backbone__weights": None}
    hungry = stranger(runs, tmp_path / "hungry", "compared", **timm, backbone__model="vit_giant_patch14_dinov2")
    with pytest.raises(UsageError, match="may take any memory"):
        Searcher.open(hungry, data=data)
