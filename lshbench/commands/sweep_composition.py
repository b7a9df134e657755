"""Composition of a sweep's jobs, without reading again for each job what many have in common.

Hydra reads the YAML files of a job's options twice, to check the sweep and to run the job, and for each job anew.  In a
sweep over finished runs that would be most of the time.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache

from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf


@cache
def share_composition() -> None:
    """Have Hydra compose the jobs of this process's sweeps by a :class:`Composer`."""
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


def _sets_value(override: Override, loader: ConfigLoaderImpl) -> bool:
    """Whether an override sets a value of lshbench's, rather than choosing an option or setting up Hydra."""
    return not override.is_hydra_override() and not loader.repository.group_exists(override.key_or_group)
