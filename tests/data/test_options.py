"""Every shipped data set option fits its constructor and imports nothing heavy."""

from __future__ import annotations

import inspect
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import hydra
import pytest
from omegaconf import OmegaConf

import lshbench.commands.run  # noqa: F401  (registers the schema)
from lshbench.config import conf_folder
from lshbench.data.base import Source

OPTIONS = sorted((conf_folder() / "dataset").glob("*.yaml"))


def composed(*overrides: str) -> dict[str, Any]:
    with hydra.initialize_config_dir(str(conf_folder()), version_base="1.3"):
        return OmegaConf.to_container(hydra.compose("config", list(overrides)), resolve=True)  # type: ignore[return-value]


def test_the_promised_options_are_there() -> None:
    assert {path.stem for path in OPTIONS} >= {
        "digits", "cifar10", "cifar100", "imagenet1k", "cifar10_images", "cifar100_images",
        "folder", "webdataset", "features", "hub", "torchvision", "synthetic",
    }  # fmt: skip


@pytest.mark.parametrize("path", OPTIONS, ids=lambda path: path.stem)
def test_a_yaml_lists_every_key_of_its_constructor_with_its_default_type(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    keys = composed(f"dataset={path.stem}")["dataset"]
    assert text.startswith("# ")
    assert keys.pop("name") == path.stem
    module, _, name = keys.pop("_target_").rpartition(".")
    source = getattr(import_module(module), name)
    assert issubclass(source, Source)
    assert set(inspect.signature(source).parameters) - {"name"} == set(keys)
    assert keys["max_gallery"] is None
    assert keys["max_queries"] is None


@pytest.mark.parametrize(
    ("overrides", "size"),
    [
        (["dataset=digits"], 128),
        (["dataset=digits", "backbone=pixels"], 32),
        (["dataset=cifar10_images"], "auto"),
        (["dataset=digits", "backbone.image_size=64"], 64),
        (["dataset=digits", "dataset.image_size=96", "backbone=vit_large"], 96),
    ],
)
def test_a_network_sees_images_at_the_size_that_the_data_set_names(overrides: list[str], size: object) -> None:
    assert composed(*overrides)["backbone"]["image_size"] == size


def test_building_a_source_imports_nothing_heavy() -> None:
    code = """
import sys, tempfile
from lshbench.data.arrays import ArraySource
from lshbench.data.digits import DigitsSource
from lshbench.data.folder import FolderSource
from lshbench.data.hub import HubSource
from lshbench.data.synthetic import SyntheticSource
from lshbench.data.torchvision import TorchvisionSource
from lshbench.data.webdataset import WebDatasetSource
DigitsSource(), SyntheticSource(), TorchvisionSource("MNIST"), HubSource(repository="a/b")
WebDatasetSource(path=tempfile.gettempdir())
ArraySource(path=sys.executable)
heavy = {"torch", "torchvision", "datasets", "huggingface_hub", "sklearn", "pyarrow", "h5py", "PIL"}
heavy &= set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", code], check=True)
