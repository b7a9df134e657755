"""Names of the files in a run's folder."""

from __future__ import annotations

import os
import re
from pathlib import Path

METRICS = "metrics.json"
MANIFEST = "manifest.json"
CONFIG = "config.yaml"
LOG = "run.log"
HYDRA = ".hydra"
MULTIRUN = "multirun.yaml"
"""In the folder of a sweep, which has a ``.hydra`` as well."""
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
LOSS_PLOT = f"{PLOTS}/loss.png"
TRADEOFF_PLOT = f"{PLOTS}/tradeoff.png"
RETRIEVAL_PLOT = f"{PLOTS}/retrieval.png"
THUMBNAILS = f"{PLOTS}/thumbnails.npz"
LOCK = ".run.lock"

_DATA = (MANIFEST, CONFIG, PER_QUERY, TRADEOFF, NEIGHBORS, CURVES, TRAINING)
_CODES = (GALLERY_CODES, QUERY_CODES, GALLERY_LABELS, QUERY_LABELS)
_PLOTS = (
    PRECISION_RECALL_PLOT,
    PRECISION_AT_K_PLOT,
    DISTANCES_PLOT,
    BIT_BALANCE_PLOT,
    TRAINING_PLOT,
    LOSS_PLOT,
    TRADEOFF_PLOT,
    RETRIEVAL_PLOT,
    THUMBNAILS,
)
FOLDERS = ("codes", MODEL, INDEX, PLOTS)
_SUFFIXES = (".safetensors", ".json", ".npy", ".npz", ".faiss")
"""Endings of the files in ``model/`` and ``index/``, where a method or an index may add files of its own."""
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}\.partial")


def known_files(path: Path) -> list[Path]:
    """Return the files of a run that are there, half-written ones too; not its log, nor ``metrics.json``."""
    found = [path / name for name in (*_DATA, *_CODES, *_PLOTS) if (path / name).is_file()]
    for name in (MODEL, INDEX):
        if (path / name).is_dir():
            found += [file for file in (path / name).iterdir() if file.suffix in _SUFFIXES and file.is_file()]
    for name in ("", *FOLDERS):
        if (path / name).is_dir():
            found += [file for file in (path / name).iterdir() if _TEMPORARY.fullmatch(file.name)]
    return sorted(found)


def finished_files(path: Path) -> list[str]:
    """Return the names of a run's files for its manifest: those of :func:`known_files` that are whole."""
    whole = [file for file in known_files(path) if not _TEMPORARY.fullmatch(file.name) and file.is_file()]
    return [name for file in whole if (name := file.relative_to(path).as_posix()) != MANIFEST]


def temporary_name(path: Path) -> Path:
    """Return a name beside a file that no other process takes."""
    return path.with_name(f".{path.name}.{os.urandom(4).hex()}.partial")
