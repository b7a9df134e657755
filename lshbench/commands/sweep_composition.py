"""Composition of runs and of a sweep's jobs, without composing again what is known or what many jobs have in common.

Hydra composes a run's configuration twice, first only to see whether it is one run or a sweep, which the flag ``-m``
says.  It reads the YAML files of a job's options twice, to check the sweep and to run the job, and for each job anew:
in a sweep over finished runs that would be most of the time.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache

from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra._internal.hydra import Hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from lshbench.config import conf_folder


@cache
def share_composition() -> None:
    """Have Hydra compose this process's runs once, and the jobs of its sweeps by a :class:`Composer`."""
    by_hydra = Hydra.get_mode

    def get_mode(hydra: Hydra, config_name: str | None, overrides: list[str]) -> RunMode | None:
        return by_hydra(hydra, config_name, overrides) if _may_set_mode(hydra, overrides) else None

    Hydra.get_mode = get_mode  # type: ignore[method-assign,assignment]
    composer = Composer(ConfigLoaderImpl.load_sweep_config)

    def load_sweep_config(
        loader: ConfigLoaderImpl, master_config: DictConfig, sweep_overrides: list[str]
    ) -> DictConfig:
        return composer.compose(loader, master_config, sweep_overrides)

    # Hydra has no setting for it.
    ConfigLoaderImpl.load_sweep_config = load_sweep_config  # type: ignore[method-assign,assignment]


class Composer:
    """Composes a sweep's jobs; those that choose the same options differ in values alone.

    Args:
        by_hydra: Hydra's own composition, from its loader, the sweep's configuration and a job's overrides.
    """

    def __init__(self, by_hydra: Callable[[ConfigLoaderImpl, DictConfig, list[str]], DictConfig]) -> None:
        self._by_hydra = by_hydra
        self._of_options: dict[tuple[str, ...], DictConfig] = {}

    def compose(self, loader: ConfigLoaderImpl, sweep: DictConfig, overrides: Sequence[str]) -> DictConfig:
        """Return a job's configuration as Hydra composes it, for the caller to change.

        Args:
            loader: Hydra's.
            sweep: the configuration of the sweep itself.
            overrides: the job's.
        """
        with suppress(Exception):  # what is wrong, Hydra says in its own way
            return self._with_values(loader, sweep, overrides)
        return self._by_hydra(loader, sweep, list(overrides))

    def _with_values(self, loader: ConfigLoaderImpl, sweep: DictConfig, overrides: Sequence[str]) -> DictConfig:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
        values = [override for override in parsed if _sets_value(override, loader)]
        loader.validate_sweep_overrides_legal(values, RunMode.RUN, from_shell=True)
        options = tuple(str(override.input_line) for override in parsed if override not in values)
        if options not in self._of_options:
            self._of_options[options] = self._by_hydra(loader, sweep, list(options))
        config = copy.deepcopy(self._of_options[options])
        loader._apply_overrides_to_config(values, config)
        own = [override for override in parsed if not override.is_hydra_override()]
        config.hydra.overrides.task = [override.input_line for override in own]
        naming = config.hydra.job.config.override_dirname
        config.hydra.job.override_dirname = get_overrides_dirname(
            own, naming.exclude_keys, item_sep=naming.item_sep, kv_sep=naming.kv_sep
        )
        OmegaConf.copy_cache(from_config=sweep, to_config=config)
        return config


def _may_set_mode(hydra: Hydra, overrides: Sequence[str]) -> bool:
    """Whether ``hydra.mode`` may be set: by an override, an experiment, or a configuration that is not lshbench's."""
    places = hydra.config_loader.get_search_path().get_path()
    shipped = all(place.provider in ("hydra", "schema") or place.path == str(conf_folder()) for place in places)
    return not shipped or any("hydra" in override or "experiment" in override for override in overrides)


def _sets_value(override: Override, loader: ConfigLoaderImpl) -> bool:
    """Whether an override sets a value of lshbench's, rather than choosing an option or setting up Hydra."""
    return not override.is_hydra_override() and not loader.repository.group_exists(override.key_or_group)
