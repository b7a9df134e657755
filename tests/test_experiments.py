"""Named experiments: every job of theirs is a run that can be made, and their heads say how."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

import lshbench.commands.run  # noqa: F401 (registers the schema and the resolvers)
from lshbench.config import check_root, conf_folder, options
from lshbench.run_folder import finished_runs
from lshbench.system import System
from tests.options import composed

EXPERIMENTS = [name for name, _ in options("experiment")]


def values(name: str) -> dict[str, list[str]]:
    """Return what an experiment sweeps over: values by key."""
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        config = compose("config", [f"experiment={name}"], return_hydra_config=True)
    assert config.hydra.mode.name == "MULTIRUN"
    swept = {}
    for key, text in OmegaConf.to_container(config.hydra.sweeper.params).items():
        override = OverridesParser.create().parse_override(f"{key}={text}")
        swept[key] = list(override.sweep_string_iterator()) if override.is_sweep_override() else [str(text)]
    return swept


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_says_how_it_is_run(name: str) -> None:
    text = (conf_folder() / "experiment" / f"{name}.yaml").read_text(encoding="utf-8")
    head = list(itertools.takewhile(lambda line: line.startswith("#"), text.splitlines()))
    assert head[0] == "# @package _global_"
    assert re.match(r"# \S", head[1])
    assert any(line.split()[1:4] == ["lshbench", "run", f"experiment={name}"] for line in head)
    assert any(re.search(r"second|minute|hour", line) for line in head), "how long it takes"


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_value_of_a_sweep_makes_a_run_that_fits_together(name: str) -> None:
    swept = values(name)
    first = {key: found[0] for key, found in swept.items()}
    for key, found in swept.items():
        for value in found:
            config = composed(f"experiment={name}", *(f"{k}={v}" for k, v in (first | {key: value}).items()))
            check_root(config)
            System.from_config(config)


@pytest.mark.slow
def test_the_trade_off_s_indexes_are_measured_at_several_settings(lshbench, tmp_path: Path) -> None:
    tiny = (
        "dataset=digits",
        "backbone=pixels",
        "backbone.image_size=8",
        "dataset.max_gallery=400",
        "dataset.max_queries=30",
    )
    lshbench("run", "experiment=tradeoff", *tiny, "evaluation.plots=false", "reference.time=false")
    runs = list(finished_runs(tmp_path / "outputs"))
    assert len(runs) == len(values("tradeoff")["experiment/tradeoff"])
    counts = {len(run.tradeoff()["mAP"]) for run in runs}
    assert counts == {1, 3, 4, 9}
