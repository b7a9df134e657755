"""Runs from Python, and options of a user's own that lie outside the checkout."""

from __future__ import annotations

import json
import re
import sys
import textwrap
from pathlib import Path

import pytest

import lshbench
from lshbench.commands.compose import override
from lshbench.errors import UsageError

SMALL = {
    "dataset": "synthetic", "dataset.items": 300, "dataset.queries": 30, "dataset.dim": 16, "dataset.classes": 4,
    "evaluation.plots": False, "bits": 16,
}  # fmt: skip
WORDS = [f"{key}={str(value).lower()}" for key, value in SMALL.items()]
ROOT = Path(__file__).parents[1]

CLASS = """
import numpy as np

from lshbench.methods.base import BinaryHasher


class Coordinates(BinaryHasher):
    def fit(self, train, progress):
        self.columns = np.random.default_rng(self.seed).integers(train.x.shape[1], size=self.bits)
        self.mean = train.x[:, self.columns].mean(0)
        return self

    def project(self, x, side):
        return (x[:, self.columns] - self.mean).astype(np.float32)

    def state(self):
        return {"columns": self.columns, "mean": self.mean}

    def restore(self, state):
        self.columns, self.mean = state["columns"], state["mean"]
        return self
"""
YAML = (
    "# Signs of randomly chosen coordinates\nname: {0}\n_target_: {0}.Coordinates\nbits: ${{bits}}\nseed: ${{seed}}\n"
)


def mine(folder: Path, name: str) -> Path:
    """Write a method of two files into a folder of options; its name differs from test to test, as modules stay."""
    (folder / "mine" / "method").mkdir(parents=True)
    (folder / "mine" / "method" / f"{name}.yaml").write_text(YAML.format(name), encoding="utf-8")
    (folder / "mine" / "method" / f"{name}.py").write_text(CLASS, encoding="utf-8")
    return folder / "mine"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, shared_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LSHBENCH_CACHE", str(shared_cache))
    monkeypatch.setattr("sys.path", [*sys.path])


def test_a_run_from_python_is_that_of_the_command_line(tmp_path: Path) -> None:
    run = lshbench.run("seed=3", method="random_projection", **SMALL)
    assert run.path.is_relative_to(tmp_path / "outputs" / "synthetic" / "random_projection")
    again = lshbench.run("seed=3", *WORDS, "method=random_projection", folder=tmp_path / "again")
    assert again.path == tmp_path / "again"
    assert again.metrics.run_id == run.metrics.run_id
    assert again.metrics.metrics == run.metrics.metrics
    assert json.loads((run.path / "metrics.json").read_text())["command"][:3] == ["lshbench", "run", "seed=3"]

    table = lshbench.load_runs(tmp_path / "outputs", tmp_path / "again")
    assert list(table["folder"]) == [str(run.path), str(again.path)]
    assert list(table["metrics.mAP"]) == [run.metrics.metrics["mAP"]] * 2
    assert set(table["method.bits"]) == {16}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"bit": 3}, "bit=3: no such key; did you mean bits?"),
        ({"method": "foruier"}, "foruier"),
        ({"bits": 0}, "bits=0"),
        ({"bits": "many"}, "bits=many"),
    ],
    ids=str,
)
def test_wrong_use_is_refused_as_on_the_command_line(keys: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        lshbench.run(**keys)
    with pytest.raises(UsageError, match="nowhere"):
        lshbench.load_runs("nowhere")


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        3,
        -0.5,
        "a b",
        "it's",
        "back\\",
        "x='1',[2]",
        "é",
        ["a", 1, None],
        {"k": "v w"},
        "null",
        "1e3",
        "${x}",
    ],
    ids=repr,
)
def test_any_value_can_be_a_key_s(value: object) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    assert OverridesParser.create().parse_override(override("key", value)).value() == value


def test_a_class_beside_its_yaml_is_found_from_python(tmp_path: Path) -> None:
    run = lshbench.run(config_dir=mine(tmp_path, "coordinates"), method="coordinates", **SMALL)
    assert run.metrics.method.name == "coordinates"
    assert run.metrics.command[2:4] == ["--config-dir", str(tmp_path / "mine")]


@pytest.mark.slow
def test_a_users_own_method_is_listed_swept_and_searched(lshbench, tmp_path: Path) -> None:
    mine(tmp_path, "outside")
    assert "outside" not in lshbench("ls", "method").stdout
    assert "  outside " in lshbench("ls", "method", "--config-dir", "mine").stdout
    digits = ("dataset=digits", "dataset.max_gallery=60", "dataset.max_queries=5", "backbone=pixels")
    lshbench(
        "run", "--config-dir", "mine", "-m", *digits, "backbone.image_size=8", "method=outside", "bits=8,16",
        "evaluation.plots=false",
    )  # fmt: skip
    (run,) = (path.parent for path in (tmp_path / "outputs").rglob("16-*/metrics.json"))
    from PIL import Image

    Image.new("L", (8, 8), 9).save(tmp_path / "query.png")
    refused = lshbench("search", str(run), "query.png", check=False)
    assert refused.returncode == 2
    assert "outside" in refused.stderr
    assert "1 query answered" in lshbench("search", str(run), "query.png", "--config-dir", "mine").stdout


def test_the_page_for_python_runs(tmp_path: Path) -> None:
    mine(tmp_path, "coordinates")
    text = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    small = {**SMALL, "dataset.dim": 40}
    names: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        # The page's runs are of the default data set, which takes a minute the first time.
        code = re.sub(r"lshbench\.run\(", f"lshbench.run(*{[override(k, v) for k, v in small.items()]!r}, ", block)
        exec(textwrap.dedent(code), names)
    assert len(names["runs"]) == 3  # type: ignore[arg-type]
