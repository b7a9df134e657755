"""The root schema, objects out of nodes, and the identity of a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from lshbench.config import GROUPS, build, check_root, conf_folder, identity, options
from lshbench.errors import UsageError
from lshbench.protocols.splits import EvaluationProtocol, SplitProtocol

ROOT = {"bits": 64, "seed": 0, "ranking": "auto", "threads": None, "device": "auto"}


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
        ({"duplicates": "error", "allow_leak": True, "_target_": "lshbench.protocols.splits.Nothing"}, "can't be imported"),
        ({"duplicates": "error", "allow_leak": True, "_target_": "no.such.module"}, "can't be imported"),
        ({"duplicates": "error", "allow_leak": True, "_target_": "os.remove"}, "a subclass of lshbench.protocols.splits"),
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
    for group in GROUPS:
        found = dict(options(group))
        assert found, group
        for name, description in found.items():
            assert len(description) > 10, f"{group}/{name}"
            assert len(description) <= 120, f"{group}/{name}"
            text = (conf_folder() / group / f"{name}.yaml").read_text(encoding="utf-8")
            if group not in ("experiment", "row", "backbone"):
                assert f"name: {name}\n" in text, f"{group}/{name}"


def test_options_of_a_users_own_folder_are_read_alike(tmp_path: Path) -> None:
    (tmp_path / "method").mkdir()
    (tmp_path / "method" / "mine.yaml").write_text("# @package _global_\n# My method\nname: mine\n", encoding="utf-8")
    assert list(options("method", tmp_path)) == [("mine", "My method")]


def test_identity_ignores_where_results_go_and_nothing_else() -> None:
    config = {**ROOT, "output": "a", "cache": None, "resume": False}
    first = identity(config, "sha256:1", "0.1")
    assert identity({**config, "output": "b", "cache": "c", "resume": True, "threads": 1}, "sha256:1", "0.1") == first
    assert identity({**config, "bits": 32}, "sha256:1", "0.1") != first
    assert identity(config, "sha256:2", "0.1") != first
    assert identity(config, "sha256:1", "0.2") != first
