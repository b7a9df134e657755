"""Every shipped data set option fits its constructor and imports nothing heavy."""

from __future__ import annotations

import inspect
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from lshbench.config import conf_folder
from lshbench.data.base import Source

OPTIONS = sorted((conf_folder() / "dataset").glob("*.yaml"))


def test_the_promised_options_are_there() -> None:
    assert {path.stem for path in OPTIONS} >= {
        "digits", "cifar10", "cifar100", "imagenet1k", "cifar10_images", "cifar100_images",
        "folder", "features", "hub", "torchvision", "synthetic",
    }  # fmt: skip


@pytest.mark.parametrize("path", OPTIONS, ids=lambda path: path.stem)
def test_a_yaml_lists_every_key_of_its_constructor_with_its_default_type(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    keys = OmegaConf.to_container(OmegaConf.load(path))
    assert isinstance(keys, dict)
    if "dataset" in keys:  # a data set that also says how networks should see it
        keys = keys["dataset"]
    assert text.startswith("# ")
    assert keys.pop("name") == path.stem
    module, _, name = keys.pop("_target_").rpartition(".")
    source = getattr(import_module(module), name)
    assert issubclass(source, Source)
    assert set(inspect.signature(source).parameters) - {"name"} == set(keys)
    assert keys["max_gallery"] is None
    assert keys["max_queries"] is None


def test_building_a_source_imports_nothing_heavy() -> None:
    code = """
import sys
from lshbench.data.arrays import ArraySource
from lshbench.data.digits import DigitsSource
from lshbench.data.folder import FolderSource
from lshbench.data.hub import HubSource
from lshbench.data.synthetic import SyntheticSource
from lshbench.data.torchvision import TorchvisionSource
DigitsSource(), SyntheticSource(), TorchvisionSource("MNIST"), HubSource(repository="a/b")
ArraySource(path=sys.executable)
heavy = {"torch", "torchvision", "datasets", "huggingface_hub", "sklearn", "pyarrow", "h5py", "PIL"}
heavy &= set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", code], check=True)
