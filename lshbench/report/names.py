"""Short names of configurations, by the settings in which they differ."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from lshbench.run_folder import Run
from lshbench.run_folder.keys import flat

NOT_NAMED = frozenset({"cache", "device", "evaluation", "hydra", "output", "reference", "resume", "threads", "tracker"})
"""Root keys of a configuration that no figure depends on, and that names leave out."""

Settings = tuple[tuple[str, str], ...]


def settings_of(run: Run) -> Settings:
    """Return the settings that name a run's configuration, as sorted pairs of a dotted key and its value."""
    config = {key: value for key, value in run.config().items() if key not in NOT_NAMED}
    return tuple(
        sorted(
            (key, value if isinstance(value, str) else json.dumps(value))
            for key, value in flat(config)
            # Methods and protocols carry the root's seed and device in their own nodes.
            if key.rpartition(".")[2] not in ("seed", "device", "_target_") and value != {}
        )
    )


def names_of(runs: Sequence[Run], *, bits: bool = True) -> list[str]:
    """Return a short name for each configuration: method and bits, and every key in which they differ.

    A key of a method, an index or another named choice tells apart what has the same name there: between others the
    name does, and the key is left out.  Configurations of equal settings differ in the source code that computed
    them, or in their data; the name then says which, by the digest's first digits.

    Args:
        runs: one of each configuration.
        bits: whether names have the code's length, or stand for all lengths.
    """
    settings = [settings_of(run) for run in runs]
    tables = [dict(pairs) for pairs in settings]
    keys = {key for table in tables for key in table} - {"bits", "method.bits", "index.bits", "method.name"}
    ordered = sorted(keys, key=lambda key: (key.partition(".")[0], not key.endswith(".name"), key))
    differing = [(key, _scope(key), _values(tables, key)) for key in ordered]
    alike_runs: dict[Settings, list[dict[str, str]]] = {}
    for run, own in zip(runs, settings, strict=True):
        alike_runs.setdefault(own, []).append(_digests(run))
    names = []
    for run, own, table in zip(runs, settings, tables, strict=True):
        method = run.metrics.method
        parts = ["features"] if method.bits is None else [method.name]
        if bits and method.bits is not None:
            asked = table.get("method.bits", str(method.bits))  # a method may need fewer
            parts.append(f"{method.bits} bits" + (f" (of {asked})" if asked != str(method.bits) else ""))
        for key, scope, values in differing:
            if key in table and len(values[table.get(scope)]) > 1:
                parts.append(f"{key.removesuffix('.name')}={table[key]}")
        alike = alike_runs[own]
        for key, digest in _digests(run).items():
            if any(other[key] != digest for other in alike):
                parts.append(f"{key}={digest.removeprefix('sha256:')[:8]}")
                alike = [other for other in alike if other[key] == digest]
        names.append(" ".join(parts))
    return names


def _scope(key: str) -> str:
    """Return the key whose values bound where a key tells apart; one that no table has for a name itself."""
    name = f"{key.partition('.')[0]}.name"
    return "" if key == name else name


def _values(tables: Sequence[Mapping[str, str]], key: str) -> dict[str | None, set[str]]:
    """Return the values of a key within each value of its scope."""
    found: dict[str | None, set[str]] = {}
    for table in tables:
        if key in table:
            found.setdefault(table.get(_scope(key)), set()).add(table[key])
    return found


def _digests(run: Run) -> dict[str, str]:
    """Return the digests that tell configurations of equal settings apart, the most telling first."""
    metrics = run.metrics
    return {"source": metrics.source, "data": metrics.dataset.fingerprint, "configuration": metrics.configuration_id}
