"""Composition of runs and of a sweep's jobs, without composing again what is known or what many jobs have in common.

Hydra composes a run's configuration twice, first only to see whether it is one run or a sweep, which the flag ``-m``
says.  It reads the YAML files of a job's options twice, to check the sweep and to run the job, and for each job anew:
in a sweep over finished runs that would be most of the time.

Hydra also composes the sweep itself, with the default option of each group that is swept.  A key that the default lacks
is no fault there: what counts is whether the options of the jobs have it.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache

from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra._internal.hydra import Hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import ConfigCompositionException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from lshbench.commands.sweep import given_overrides, planned
from lshbench.config import conf_folder


@cache
def share_composition() -> None:
    """Have Hydra compose this process's runs once, and its sweeps and their jobs as this module does."""
    by_hydra = Hydra.get_mode

    def get_mode(hydra: Hydra, config_name: str | None, overrides: list[str]) -> RunMode | None:
        return by_hydra(hydra, config_name, overrides) if _may_set_mode(hydra, overrides) else None

    Hydra.get_mode = get_mode  # type: ignore[method-assign,assignment]
    composer = Composer(ConfigLoaderImpl.load_sweep_config)

    def load_sweep_config(
        loader: ConfigLoaderImpl, master_config: DictConfig, sweep_overrides: list[str]
    ) -> DictConfig:
        return composer.compose(loader, master_config, sweep_overrides)

    load_by_hydra = ConfigLoaderImpl.load_configuration

    def load_configuration(
        loader: ConfigLoaderImpl,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        from_shell: bool = True,
        validate_sweep_overrides: bool = True,
    ) -> DictConfig:
        def load(overrides: list[str]) -> DictConfig:
            return load_by_hydra(loader, config_name, overrides, run_mode, from_shell, validate_sweep_overrides)

        if run_mode != RunMode.MULTIRUN:
            return load(overrides)
        config = _without_missing_keys(load, overrides)
        if validate_sweep_overrides:  # which is the sweep's own composition, rather than a look at its mode
            _check_keys(loader, config)
        return config

    # Hydra has no setting for it.
    ConfigLoaderImpl.load_sweep_config = load_sweep_config  # type: ignore[method-assign,assignment]
    ConfigLoaderImpl.load_configuration = load_configuration  # type: ignore[method-assign,assignment]


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
        _note_overrides(config, parsed)
        OmegaConf.copy_cache(from_config=sweep, to_config=config)
        return config


def _without_missing_keys(load: Callable[[list[str]], DictConfig], overrides: list[str]) -> DictConfig:
    """Return a sweep's configuration, in which keys that its default options lack are left to its jobs."""
    try:
        return load(overrides)
    except ConfigCompositionException as error:
        parsed = OverridesParser.create().parse_overrides(overrides)
        key = _missing_key(error)
        left = [override for override in parsed if override.key_or_group == key and not override.is_hydra_override()]
        if not left:
            raise
    config = _without_missing_keys(load, [str(override.input_line) for override in parsed if override not in left])
    _note_overrides(config, parsed)
    return config


def _check_keys(loader: ConfigLoaderImpl, sweep: DictConfig) -> None:
    """Refuse a sweep, before anything of it runs, where options of its jobs lack a key that is given.

    Raises:
        ConfigCompositionException: names the options that lack it; Hydra's own where all do, or for another fault.
    """
    jobs = planned(sweep)
    first = OverridesParser.create().parse_overrides(list(jobs[0])) if jobs else []
    places = [place for place, override in enumerate(first) if not _sets_value(override, loader)]
    # Jobs of the same options have the same keys.
    of_options: dict[tuple[str, ...], tuple[str, ...]] = {}
    for job in jobs:
        of_options.setdefault(tuple(job[place] for place in places), job)
    for job in of_options.values():
        try:
            loader.load_sweep_config(sweep, list(job))
        except ConfigCompositionException as error:
            given = [override for override in job if override.partition("=")[0] == _missing_key(error)]
            lacking = {options: _lacks(loader, sweep, [*options, *given]) for options in of_options if given}
            if len(set(lacking.values())) < 2:
                raise
            raise ConfigCompositionException(_lacking_options(sweep, given[0], lacking)) from error


def _lacks(loader: ConfigLoaderImpl, sweep: DictConfig, overrides: list[str]) -> bool:
    try:
        loader.load_sweep_config(sweep, overrides)
    except ConfigCompositionException as error:
        if not _missing_key(error):
            raise
        return True
    return False


def _lacking_options(sweep: DictConfig, override: str, lacking: dict[tuple[str, ...], bool]) -> str:
    """Return what is wrong with a key that some options of a sweep lack, and which do.

    Args:
        sweep: the sweep's configuration.
        override: a job's, with the key.
        lacking: whether the options of a job lack the key.
    """
    varied = [place for place, options in enumerate(zip(*lacking, strict=True)) if len(set(options)) > 1]
    # One group decides, unless one option is a part of another, as a head is of a method.
    for places in (*([place] for place in varied), varied):
        names: dict[bool, dict[str, None]] = {True: {}, False: {}}
        for options, lacks in lacking.items():
            names[lacks][" ".join(options[place] for place in places)] = None
        if not names[True].keys() & names[False].keys():
            break
    without, having = (
        f"{', '.join(names[lacks])} {'has' if len(names[lacks]) == 1 else 'have'}" for lacks in (True, False)
    )
    key = override.partition("=")[0]
    given = next((text for text in given_overrides(sweep) if text.partition("=")[0] == key), override)
    return f"{given}: {without} no such key, {having} it; expected only options that have it, or a sweep for each kind"


def _missing_key(error: ConfigCompositionException) -> str:
    """Return the key that an override sets and that is not there; empty where something else is wrong."""
    found = re.match(r"Could not override '(.+)'\.\nTo append to your config", str(error))
    return found[1] if found else ""


def _note_overrides(config: DictConfig, overrides: Sequence[Override]) -> None:
    """Note in a configuration what it is composed of, as Hydra does."""
    own = [override for override in overrides if not override.is_hydra_override()]
    config.hydra.overrides.task = [override.input_line for override in own]
    naming = config.hydra.job.config.override_dirname
    config.hydra.job.override_dirname = get_overrides_dirname(
        own, naming.exclude_keys, item_sep=naming.item_sep, kv_sep=naming.kv_sep
    )


def _may_set_mode(hydra: Hydra, overrides: Sequence[str]) -> bool:
    """Whether ``hydra.mode`` may be set: by an override, an experiment, or a configuration that is not lshbench's."""
    places = hydra.config_loader.get_search_path().get_path()
    shipped = all(place.provider in ("hydra", "schema") or place.path == str(conf_folder()) for place in places)
    return not shipped or any("hydra" in override or "experiment" in override for override in overrides)


def _sets_value(override: Override, loader: ConfigLoaderImpl) -> bool:
    """Whether an override sets a value of lshbench's, rather than choosing an option or setting up Hydra."""
    return not override.is_hydra_override() and not loader.repository.group_exists(override.key_or_group)
