"""A fitted retrieval system: PCA if asked for, a hashing method, and an index."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, Self

import numpy as np

from lshbench.config import Trust, build, check_classes, conf_folder, options
from lshbench.errors import UsageError, wrong_value
from lshbench.index.base import Index, Ranking
from lshbench.index.ties import by_cosine, by_projections, untied
from lshbench.methods.base import Method
from lshbench.run_folder import Run, RunFolder
from lshbench.run_folder.contents import INDEX, METHOD_STATE, MODEL, MODEL_DESCRIPTION, PCA_STATE
from lshbench.run_folder.reader import damage
from lshbench.training.pca import PCA
from lshbench.types import CodeKind, Encoded, Features, Neighbors, Progress, Side, is_unlabelled


def methods_without_labels() -> list[str]:
    """Return the names of the method options that are trained without labels."""
    import yaml

    found = []
    for name, _ in options("method"):
        keys = yaml.safe_load((conf_folder() / "method" / f"{name}.yaml").read_text(encoding="utf-8"))
        module, _, method = keys["_target_"].rpartition(".")
        supervision = keys.get("supervision", getattr(importlib.import_module(module), method).supervision)
        if supervision == "none":
            found.append(name)
    return found


class System:
    """Everything that answers queries: made of a configuration, fitted on training items, saved with a run.

        system = System.from_config(config).fit(train, progress)
        system.build(system.encode(gallery.x, "gallery"))
        neighbors = system.search(system.encode(queries.x, "query"), k=10)

    Attributes:
        pca: reduction of the features before the method, or None.
        method: gives codes.
        index: finds and ranks candidates.
    """

    def __init__(self, pca: PCA | None, method: Method, index: Index) -> None:
        self.pca, self.method, self.index = pca, method, index

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Return the system that a resolved configuration describes, yet to be fitted.

        Raises:
            UsageError: a value that can't be used, or an index that can't hold what the method gives.
        """
        method = build(config, "method", Method)
        index = build_index(config, method.gives)
        pca = config["pca"]
        return cls(None if pca["dim"] is None else PCA(pca["dim"], whiten=pca["whiten"]), method, index)

    def check_labels(self, labels: np.ndarray) -> None:
        """Check that there are labels where the method is trained with them.

        Args:
            labels: of the data set's items.

        Raises:
            UsageError: there are none; names the methods that need none.
        """
        if self.method.supervision == "labels" and is_unlabelled(labels):
            raise UsageError(
                f"method: {type(self.method).__name__} is trained with labels, and the data set has none: expected "
                f"labels, or a method that needs none: {', '.join(methods_without_labels())}"
            )

    @property
    def ranking(self) -> Ranking:
        """The kind of distance: ``hamming``, ``cosine`` or ``asymmetric``."""
        return self.index.ranking

    def fit(self, train: Features, progress: Progress) -> Self:
        """Fit PCA and method on training items."""
        if self.pca is not None:
            self.pca.fit(train.x)
        self.method.fit(Features(self._reduce(train.x), train.y, train.ids), progress)
        return self

    def encode(self, x: np.ndarray, side: Side, *, projections: bool | None = None) -> Encoded:
        """Return items as the index takes them: features ``(n, d)`` float32 and their codes.

        Args:
            x: features, float32 ``(n, d)``, as loaded.
            side: gallery items or queries.
            projections: whether binary codes come with their projections; None: if the index reads them.
        """
        if projections is None:
            projections = self.index.needs_projections(side)
        return Encoded(x, self.method.encode(self._reduce(x), side, projections=projections))

    def build(self, gallery: Encoded) -> Self:
        """Index the gallery."""
        self.index.build(gallery)
        return self

    def search(self, queries: Encoded, k: int) -> Neighbors:
        """Return the ``k`` nearest gallery items of each query."""
        return self.index.search(queries, k)

    def search_for_people(self, queries: Encoded, k: int, gallery: np.ndarray) -> Neighbors:
        """Return the ``k`` nearest gallery items of each query, ties broken and counted (:mod:`lshbench.index.ties`).

        Args:
            queries: encoded, with projections where ``gallery`` has codes.
            k: results of each query.
            gallery: by what ties are broken: features, float32 ``(n, d)``, or packed codes, uint8 ``(n, bytes)``.
        """
        if gallery.dtype == np.uint8:
            return untied(self.index, queries, k, by_projections(queries.projections, gallery))
        return untied(self.index, queries, k, by_cosine(queries.features, gallery))

    def _reduce(self, x: np.ndarray) -> np.ndarray:
        return x if self.pca is None else self.pca.transform(x)

    def save(self, folder: RunFolder, config: dict[str, Any]) -> None:
        """Write what was fitted into a run's folder: ``model/`` (safetensors and JSON) and ``index/``."""
        folder.write_safetensors(METHOD_STATE, self.method.state(), {})
        if self.pca is not None:
            folder.write_safetensors(PCA_STATE, self.pca.state(), {})
        # With the values in effect: what `auto` comes to may change.
        described = {key: config[key] for key in ("pca", "backbone", "index", "ranking")}
        folder.write_json(MODEL_DESCRIPTION, {"method": config["method"] | self.method.in_effect(), **described})
        with folder.directory(INDEX) as path:
            self.index.save(path)

    @classmethod
    def open(
        cls,
        run: Run,
        gallery_features: Callable[[], np.ndarray],
        *,
        device: str | None = None,
        trust: Trust = Trust(),  # noqa: B008 (it can't be changed)
    ) -> Self:
        """Return the fitted system of a finished run.

        Args:
            run: the run.
            gallery_features: gives the gallery's features, float32 ``(n, d)``; called if the index compares them.
            device: where networks run, such as ``cpu``; None takes the run's own.
            trust: which classes the run may name.

        Raises:
            UsageError: a file is missing, damaged, or doesn't fit the others, or a class that is not trusted.
        """
        described = run.model()
        check_classes(described, trust)
        if device is not None and "device" in described["method"]:
            described["method"]["device"] = device
        with damage(run.path / MODEL_DESCRIPTION):
            system = cls.from_config(described)
        _restore(run, system.method, METHOD_STATE)
        if system.pca is not None:
            _restore(run, system.pca, PCA_STATE)
        run.files(INDEX)
        features = gallery_features() if system.index.ranks_features else None
        with damage(run.path / INDEX):
            system.index = system.index.reopened(run.path / INDEX, features)
            if len(system.index) != run.metrics.dataset.gallery or system.index.ranking != run.metrics.ranking:
                raise ValueError(f"an index of {len(system.index)} items by {system.index.ranking}, not the run's")
        # What doesn't go together is seen by the first query.
        nothing = np.zeros((1, run.metrics.dataset.dim), np.float32)
        with damage(run.path / MODEL):
            query = system.encode(nothing, "query")
        with damage(run.path / INDEX):
            system.search(query, 1)
        return system


def build_index(config: dict[str, Any], gives: CodeKind) -> Index:
    """Return the index that a configuration describes, its results rescored where it says so.

    Args:
        config: the resolved configuration.
        gives: what the method gives for an item.

    Raises:
        UsageError: a value that can't be used, or an index that can't hold what the method gives.
    """
    node = dict(config["index"])
    oversample, rescore_with = node.pop("oversample", None), node.pop("rescore_with", None)
    index = build(config | {"index": node}, "index", Index, gives=gives, ranking=config["ranking"])
    if oversample is not None:
        from lshbench.index.oversampled import OversampledIndex

        return OversampledIndex(index, oversample, rescore_with or "float32")
    if rescore_with not in (None, "float32"):
        right = "float32, or int8 with index.oversample, without which nothing is rescored"
        raise wrong_value("index.rescore_with", rescore_with, right)
    return index


def _restore(run: Run, made: Method | PCA, name: str) -> None:
    """Load what was learnt: arrays in a safetensors file, which can hold nothing that runs."""
    from safetensors.numpy import load_file

    path = run.file(name)
    with damage(path):
        state = load_file(path)
        for key, array in state.items():
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise ValueError(f"{key} has NaN or infinite values")
        made.restore(state)
