"""Contents of a run's folder: the names of its files, and the curves that its plots draw."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

METRICS = "metrics.json"
CONFIG = "config.yaml"
LOG = "run.log"
HYDRA = ".hydra"
PER_QUERY = "per_query.parquet"
TRADEOFF = "tradeoff.parquet"
NEIGHBORS = "neighbors.npz"
GALLERY_CODES = "codes/gallery.npy"
QUERY_CODES = "codes/queries.npy"
GALLERY_LABELS = "codes/gallery_labels.npy"
QUERY_LABELS = "codes/query_labels.npy"
CURVES = "curves.npz"
TRAINING = "training.json"
MODEL = "model"
MODEL_DESCRIPTION = f"{MODEL}/model.json"
METHOD_STATE = f"{MODEL}/method.safetensors"
PCA_STATE = f"{MODEL}/pca.safetensors"
INDEX = "index"
ITEM_IDS = f"{INDEX}/items.npy"
ITEM_NAMES = f"{INDEX}/item_names.npy"
ITEM_NAME_ENDS = f"{INDEX}/item_name_ends.npy"
CLASS_NAMES = f"{INDEX}/classes.json"
PLOTS = "plots"
PRECISION_RECALL_PLOT = f"{PLOTS}/precision_recall.png"
PRECISION_AT_K_PLOT = f"{PLOTS}/precision_at_k.png"
DISTANCES_PLOT = f"{PLOTS}/distances.png"
BIT_BALANCE_PLOT = f"{PLOTS}/bit_balance.png"
TRAINING_PLOT = f"{PLOTS}/training.png"
TRADEOFF_PLOT = f"{PLOTS}/tradeoff.png"
RETRIEVAL_PLOT = f"{PLOTS}/retrieval.png"
LOCK = ".run.lock"

_FILES = (
    CONFIG,
    PER_QUERY,
    TRADEOFF,
    NEIGHBORS,
    GALLERY_CODES,
    QUERY_CODES,
    GALLERY_LABELS,
    QUERY_LABELS,
    CURVES,
    TRAINING,
    PRECISION_RECALL_PLOT,
    PRECISION_AT_K_PLOT,
    DISTANCES_PLOT,
    BIT_BALANCE_PLOT,
    TRAINING_PLOT,
    TRADEOFF_PLOT,
    RETRIEVAL_PLOT,
)
FOLDERS = ("codes", MODEL, INDEX, PLOTS)
_SUFFIXES = (".safetensors", ".json", ".npy", ".npz", ".faiss")
"""Endings of the files in ``model/`` and ``index/``, where a method or an index may add files of its own."""
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}\.partial")


@dataclass(frozen=True)
class Curves:
    """Curves over all queries, for the plots (``curves.npz``).

    Attributes:
        recall: float64 ``(r,)``, ascending recall levels from 0 to 1.
        precision: float64 ``(r,)``, mean precision over queries at those levels.
        k: int64 ``(m,)``, ascending lengths of the result list.
        precision_at_k: float64 ``(m,)``, mean precision of the first ``k`` results, expected over ties.
        precision_at_k_bounds: float64 ``(2, m)``, the pessimistic and the optimistic one, or None.
        distance_edges: float64 ``(b + 1,)``, edges of distance bins; -0.5, 0.5, ... for Hamming distances;
            None where distances were not counted.
        same_class: int64 ``(b,)``, pairs of a query and a gallery item of its class in each bin, or None.
        other_class: int64 ``(b,)``, the same for pairs of different classes, or None.
        bit_means: float64 ``(bits,)``, the share of gallery items whose bit is set; None without codes.
        reference_precision: as ``precision``, for exact cosine ranking of the features, or None.
        reference_precision_at_k: as ``precision_at_k``, for exact cosine ranking, or None.
    """

    recall: np.ndarray
    precision: np.ndarray
    k: np.ndarray
    precision_at_k: np.ndarray
    precision_at_k_bounds: np.ndarray | None = None
    distance_edges: np.ndarray | None = None
    same_class: np.ndarray | None = None
    other_class: np.ndarray | None = None
    bit_means: np.ndarray | None = None
    reference_precision: np.ndarray | None = None
    reference_precision_at_k: np.ndarray | None = None

    @classmethod
    def from_summary(
        cls,
        summary: Mapping[str, Any],
        *,
        bit_means: np.ndarray | None = None,
        reference: Mapping[str, Any] | None = None,
    ) -> Self:
        """Return the curves of a summary of :class:`lshbench.metrics.curves.CurveAccumulator`.

        Args:
            summary: of the run's ranking.
            bit_means: the share of gallery items whose bit is set, float ``(bits,)``.
            reference: the same summary for exact cosine ranking, over the same recall levels and ranks.
        """
        recall, at, distances = summary["precision_recall"], summary["precision_at"], summary["distances"]
        counted: dict[str, np.ndarray] = {}
        if distances is not None:
            middle = np.asarray(distances["distance"], np.float64)
            counted = {
                "distance_edges": np.append(middle - 0.5, middle[-1] + 0.5),
                "same_class": np.asarray(distances["same_label"], np.int64),
                "other_class": np.asarray(distances["other_label"], np.int64),
            }
        if reference is not None:
            counted["reference_precision"] = np.asarray(reference["precision_recall"]["precision"])
            counted["reference_precision_at_k"] = np.asarray(reference["precision_at"]["expected"])
        return cls(
            recall=np.asarray(recall["recall"]),
            precision=np.asarray(recall["precision"]),
            k=np.asarray(at["k"], np.int64),
            precision_at_k=np.asarray(at["expected"]),
            precision_at_k_bounds=np.asarray([at["pessimistic"], at["optimistic"]]),
            bit_means=bit_means,
            **counted,
        )


def known_files(path: Path) -> list[Path]:
    """Return the files of a run that are there, half-written ones too; not its log, nor ``metrics.json``."""
    found = [path / name for name in _FILES if (path / name).is_file()]
    for name in (MODEL, INDEX):
        if (path / name).is_dir():
            found += [file for file in (path / name).iterdir() if file.suffix in _SUFFIXES and file.is_file()]
    for name in ("", *FOLDERS):
        if (path / name).is_dir():
            found += [file for file in (path / name).iterdir() if _TEMPORARY.fullmatch(file.name)]
    return sorted(found)


def temporary_name(path: Path) -> Path:
    """Return a name beside a file that no other process takes."""
    return path.with_name(f".{path.name}.{os.urandom(4).hex()}.partial")
