"""Composition of a configuration from overrides, as ``lshbench run`` composes it, for use from Python."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from lshbench.errors import UsageError

WORDS = ("null", "true", "false", "nan", "inf")
"""Text that Hydra takes for something else unless it stands in quotes."""


def override(key: str, value: object) -> str:
    """Return ``key=value`` in Hydra's grammar, in which text may need quotes.

    Args:
        key: such as ``bits`` or ``method.training.epochs``.
        value: None, a number, text, a path, or a list, tuple or mapping of these.
    """
    return f"{key}={_literal(value)}"


def _literal(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return f"[{','.join(_literal(item) for item in value)}]"
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{key}:{_literal(item)}' for key, item in value.items())}}}"
    text = str(value)
    if re.fullmatch(r"[A-Za-z_/][A-Za-z0-9_./-]*", text) and text.lower() not in WORDS:
        return text
    return "'{}'".format(re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + ("\\'" if found[2] else ""), text))


def compose(overrides: Sequence[str], config_dir: Path | None = None) -> tuple[dict[str, Any], Path]:
    """Return the resolved configuration for overrides, and the folder that a run of it is given.

    Args:
        overrides: as on the command line, such as ``method=kmeans``.
        config_dir: a folder with options of the user's own, as ``--config-dir`` names one.

    Raises:
        UsageError: an override that the command line would refuse.
    """
    config, folder = _composed("config", overrides, config_dir)
    return config, Path(folder)


def compose_tuning(overrides: Sequence[str], config_dir: Path | None = None) -> dict[str, Any]:
    """Return the resolved keys of ``tune`` that ``lshbench tune`` has besides those of a run.

    Args:
        overrides: such as ``tune=fourier`` and ``tune.trials=50``.
        config_dir: as for :func:`compose`.

    Raises:
        UsageError: an override that can't be used.
    """
    return _composed("tuning", overrides, config_dir)[0]["tune"]


def compose_choice(overrides: Sequence[str], config_dir: Path | None = None) -> dict[str, Any]:
    """Return the resolved keys that ``lshbench choose`` has besides those of a run: ``choose``, ``budget``, ``target``.

    Args:
        overrides: such as ``budget.bytes=16`` and ``choose=unsupervised``.
        config_dir: as for :func:`compose`.

    Raises:
        UsageError: an override that can't be used.
    """
    return _composed("choosing", overrides, config_dir)[0]


def refuse_lists(overrides: Sequence[str], command: str, right: str) -> None:
    """Refuse several values of a key, such as ``bits=16,32``, which only a sweep has.

    Args:
        overrides: as on the command line.
        command: that takes one.
        right: what would be right instead.

    Raises:
        UsageError: there are several.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    for text in overrides:
        try:
            (parsed,) = OverridesParser.create().parse_overrides([text])
        except HydraException:
            continue  # composing says what is wrong with it
        if parsed.is_sweep_override():
            raise UsageError(f"{text}: expected {right} ({command} is no sweep; lshbench run -m is one)")


def _composed(root: str, overrides: Sequence[str], config_dir: Path | None) -> tuple[dict[str, Any], str]:
    """Return the resolved configuration of a root file, and what its ``hydra.run.dir`` comes to."""
    import hydra
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    from lshbench.commands.refusals import explain
    from lshbench.commands.run import _readable
    from lshbench.config import conf_folder, use_modules_beside

    if config_dir is not None:
        if not config_dir.is_dir():
            raise UsageError(f"config_dir={str(config_dir)!r}: expected a folder of options")
        use_modules_beside(config_dir)
        overrides = [f"hydra.searchpath=[file://{config_dir.resolve()}]", *overrides]
    try:
        with hydra.initialize_config_dir(str(conf_folder()), version_base="1.3"):
            composed = hydra.compose(root, list(overrides), return_hydra_config=True)
            folder = str(OmegaConf.select(composed, "hydra.run.dir"))
            own = OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"])
            return cast(dict[str, Any], OmegaConf.to_container(own, resolve=True)), folder
    except (HydraException, OmegaConfBaseException, ValueError, YAMLError) as error:
        message = None if isinstance(error, HydraException) else explain(error, list(overrides))
        raise UsageError(message or _readable(error, list(overrides))) from error
