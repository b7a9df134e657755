"""The root schema, objects out of nodes, and the identity of a run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import lshbench
from lshbench.config import LISTED, Identity, build, check_root, conf_folder, identity, options, source_digest
from lshbench.errors import UsageError
from lshbench.protocols.splits import EvaluationProtocol, SplitProtocol
from tests.options import composed

ROOT = {"resume": "auto", "bits": 64, "seed": 0, "ranking": "auto", "threads": None, "device": "auto"}


def node(**keys: object) -> dict:
    return {"protocol": {"name": "full", "_target_": "lshbench.protocols.splits.SplitProtocol", **keys}}


def test_a_node_becomes_an_object_and_its_name_stays_outside() -> None:
    built = build(node(duplicates="error", allow_leak=True), "protocol", EvaluationProtocol)
    assert isinstance(built, SplitProtocol)
    assert (built.duplicates, built.allow_leak) == ("error", True)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"duplicates": "error", "allow_leak": True, "width": 3},
            r"protocol.width=3: no such key.*duplicates, allow_leak",
        ),
        ({"duplicates": "error"}, "protocol.allow_leak is not set"),
        ({"duplicates": "error", "allow_leak": "no"}, "protocol.allow_leak='no': expected true or false"),
        ({"duplicates": "error", "allow_leak": True, "_target_": "lshbench.config.Nothing"}, "can't be imported"),
        ({"duplicates": "error", "allow_leak": True, "_target_": "no.such.module"}, "can't be imported"),
        ({"duplicates": "error", "allow_leak": True, "_target_": "os.remove"}, "a subclass of lshbench.proto"),
        ({"duplicates": "error", "allow_leak": True, "_target_": None}, "import path"),
    ],
)  # fmt: skip
def test_a_node_that_cannot_be_built_says_which_key_is_wrong(keys: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build(node(**keys), "protocol", EvaluationProtocol)


@pytest.mark.parametrize(
    ("key", "value"),
    [("bits", 0), ("bits", 4097), ("seed", -1), ("ranking", "euclid"), ("threads", 0), ("device", "gpu")],
)
def test_root_values_out_of_range_are_named(key: str, value: object) -> None:
    check_root(ROOT)
    with pytest.raises(UsageError, match=f"{key}={value!r}: expected"):
        check_root({**ROOT, key: value})


def test_every_shipped_option_has_a_description_and_a_name() -> None:
    for group in LISTED:
        found = dict(options(group))
        assert found, group
        for name, description in found.items():
            assert len(description) > 10, f"{group}/{name}"
            assert len(description) <= 120, f"{group}/{name}"
            text = (conf_folder() / group / f"{name}.yaml").read_text(encoding="utf-8")
            if group not in ("experiment", "backbone", "table"):
                assert f"name: {name}\n" in text, f"{group}/{name}"


def test_options_of_a_users_own_folder_are_read_alike(tmp_path: Path) -> None:
    (tmp_path / "method").mkdir()
    (tmp_path / "method" / "mine.yaml").write_text("# @package _global_\n# My method\nname: mine\n", encoding="utf-8")
    assert list(options("method", tmp_path)) == [("mine", "My method")]


def of(config: dict, params: dict | None = None, fingerprint: str = "sha256:1") -> Identity:
    return identity(config, params or {}, fingerprint)


def test_identity_counts_what_an_encoder_came_to(shared_cache: Path) -> None:
    from lshbench.inputs import Inputs
    from lshbench.runtime.progress import silent

    found = []
    for precision in ("float32", "bfloat16"):
        config = composed(f"backbone.precision={precision}", "dataset.max_gallery=20", "dataset.max_queries=10")
        inputs = Inputs.from_config(config, 1, shared_cache)
        encoder = inputs.encoder(inputs.open(silent), silent)
        assert encoder is not None
        assert encoder["weights"].startswith("sha256:")
        # The same words in the configuration, as where auto comes to another precision on another machine.
        found.append(identity(composed(), {}, "data", encoder))
    assert found[0].run != found[1].run
    assert found[0].configuration != found[1].configuration


def test_identity_ignores_where_results_go_and_nothing_else() -> None:
    config = {
        **ROOT, "output": "a", "cache": None, "resume": False,
        "method": {"_target_": "lshbench.methods.itq.Itq", "bits": 64, "seed": 0, "device": "auto"},
        "backbone": {"batch_size": "auto", "workers": 1, "image_size": 128},
        "evaluation": {"definitions": True, "plots": True}, "reference": {"cosine": True, "time": True},
    }  # fmt: skip
    first = of(config)
    elsewhere = {**config, "output": "b", "cache": "c", "resume": True, "threads": 1, "device": "cpu"}
    elsewhere |= {"backbone": {"batch_size": 3, "workers": 2, "image_size": 128}}
    elsewhere |= {"evaluation": {"definitions": True, "plots": False}, "reference": {"cosine": True, "time": False}}
    assert of(elsewhere) == first
    for change in (
        {"bits": 32, "method": {**config["method"], "bits": 32}},
        {"backbone": {**config["backbone"], "image_size": 64}},
    ):
        assert of({**config, **change}).run != first.run
        assert of({**config, **change}).configuration != first.configuration
    alone = {**config, "method": {"_target_": "lshbench.methods.float16.Float16"}}
    assert of({**alone, "bits": 32}) == of({**alone, "bits": 64}), "a method that takes no length"
    assert of(config, {"temperature": 3.0}).run != of(config, {"temperature": 2.0}).run, "what `auto` comes to counts"
    assert of(config, fingerprint="sha256:2").run != first.run


def test_repeats_differ_in_seeds_and_the_items_that_they_draw_alone() -> None:
    config = {**ROOT, "method": {"seed": 0, "width": 3}}
    other = {**config, "seed": 1, "method": {"seed": 1, "width": 3}}
    assert of(config).run != of(other, fingerprint="sha256:2").run
    assert of(config).configuration == of(other, fingerprint="sha256:2").configuration
    assert of(config).configuration != of({**config, "method": {"seed": 0, "width": 4}}).configuration


def test_the_source_of_a_method_from_elsewhere_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = tmp_path / "methods_of_mine.py"
    module.write_text("width = 3\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    first = source_digest("methods_of_mine.Mine")
    assert first != source_digest("lshbench.methods.itq.Itq") == source_digest()
    module.write_text("width = 4\n", encoding="utf-8")
    source_digest.cache_clear()
    assert source_digest("methods_of_mine.Mine") != first


COMMAND = ["run", "dataset=synthetic", "dataset.items=300", "dataset.queries=20", "dataset.dim=16", "method=itq"]
COMMAND += ["bits=8", "resume=true", "reference.cosine=false", "evaluation.plots=false"]


@pytest.mark.slow
def test_finished_runs_are_computed_again_after_an_edit_that_can_change_a_figure(tmp_path: Path) -> None:
    source = Path(lshbench.__file__).parent
    package = shutil.copytree(source, tmp_path / "lshbench", ignore=shutil.ignore_patterns("__pycache__"))
    conf = shutil.copytree(conf_folder(), tmp_path / "conf")

    def runs() -> int:
        environment = {**os.environ, "PYTHONPATH": str(tmp_path), "LSHBENCH_CACHE": str(tmp_path / "cache")}
        command = [sys.executable, "-m", "lshbench", *COMMAND]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done.stderr
        return len(list((tmp_path / "outputs").rglob("metrics.json")))

    def edit(path: Path, before: str, after: str) -> None:
        text = path.read_text(encoding="utf-8")
        assert before in text
        path.write_text(text.replace(before, after), encoding="utf-8")

    assert runs() == 1
    assert runs() == 1, "nothing changed"
    edit(conf / "method" / "itq.yaml", "iterations: 50", "iterations: 49")
    assert runs() == 2, "a default of the configuration"
    edit(package / "methods" / "itq.py", "generator = ", "generator  = ")
    assert runs() == 3, "a line of the method"
    edit(package / "plots" / "bits.py", "from __future__ import annotations", "from __future__ import annotations  # !")
    assert runs() == 3, "a comment where pictures are drawn"
