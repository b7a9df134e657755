"""A sweep's jobs are composed as Hydra composes them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hydra import initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import ConfigCompositionException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

import lshbench.commands.run  # noqa: F401  # registers what configurations refer to
from lshbench.commands.sweep_composition import Composer, _lacking_options
from lshbench.config import conf_folder


@pytest.fixture
def loader() -> Iterator[ConfigLoaderImpl]:
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        found = GlobalHydra.instance().config_loader()
        assert isinstance(found, ConfigLoaderImpl)
        yield found


def test_jobs_are_as_hydra_composes_them_and_share_what_they_read(loader: ConfigLoaderImpl) -> None:
    sweep = loader.load_configuration("config", ["bits=8,16", "hydra.sweep.dir=elsewhere"], RunMode.MULTIRUN)
    read = []

    def by_hydra(loader: ConfigLoaderImpl, sweep: DictConfig, overrides: list[str]) -> DictConfig:
        read.append(overrides)
        return ConfigLoaderImpl.load_sweep_config(loader, sweep, overrides)

    composer = Composer(by_hydra)
    for overrides in (
        ["bits=8", "method=neural", "head@method.head=linear", "+note.text=a", "method.training.epochs=3"],
        ["bits=16", "method=neural", "head@method.head=linear", "++note=b", "seed=2"],
    ):
        found = composer.compose(loader, sweep, overrides)
        assert OmegaConf.to_yaml(found) == OmegaConf.to_yaml(by_hydra(loader, sweep, overrides))
        found.bits = 32  # which is the job's alone
    assert read.count(["method=neural", "head@method.head=linear"]) == 1
    with pytest.raises(ConfigCompositionException, match=r"Could not override 'method\.epochs'"):
        composer.compose(loader, sweep, ["method=neural", "head@method.head=linear", "method.epochs=3"])


def test_the_group_that_decides_is_named_or_what_it_takes_together() -> None:
    sweep = OmegaConf.create({"hydra": {"overrides": {"task": ["index=flat,lsh", "index.nbits=8,16"]}}})
    one = {(f"index={index}", f"method={method}"): index == "flat" for index in ("flat", "lsh") for method in "ab"}
    assert _lacking_options(sweep, "index.nbits=8", one).startswith(
        "index.nbits=8,16: index=flat has no such key, index=lsh has it; "
    )
    both = {options: options == ("index=flat", "method=a") for options in one}
    assert _lacking_options(sweep, "method.x=8", both).startswith(
        "method.x=8: index=flat method=a has no such key, "
        "index=flat method=b, index=lsh method=a, index=lsh method=b have it; "
    )
