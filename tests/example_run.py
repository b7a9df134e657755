"""An example of a finished run: the contract's metrics.json, and a folder made from synthetic codes."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np

from lshbench.metrics.curves import Curves
from lshbench.run_folder import Run, RunFolder, RunMetrics

METRICS: dict[str, Any] = {
    "schema_version": 1,
    "run_id": "0123456789abcdef",
    "configuration_id": "fedcba9876543210",
    "source": "sha256:11",
    "created": "2025-01-01T00:00:00Z",
    "command": ["lshbench", "run", "bits=64"],
    "seed": 0,
    "dataset": {
        "name": "cifar100_images",
        "gallery": 50000,
        "queries": 10000,
        "train": 50000,
        "classes": 100,
        "dim": 1280,
        "backbone": "efficientnet_lite0",
        "fingerprint": "sha256:00",
        "queries_without_relevant": 0,
        "unanswered": None,
    },
    "protocol": {
        "name": "full",
        "split_hash": "sha256:00",
        "query_gallery_overlap": 0,
        "query_train_overlap": 0,
        "train_gallery_overlap": 50000,
        "exact_duplicates": 3,
        "exact_duplicates_train": 0,
        "leak": False,
        "leave_one_out": False,
        "train_gallery_copies": 0,
        "near_copies": 4,
        "labels": None,
        "definition": None,
        "classes": {
            "queries": {"count": 100, "smallest": 100, "largest": 100, "mean": 100.0},
            "gallery": {"count": 100, "smallest": 500, "largest": 500, "mean": 500.0},
            "train": {"count": 100, "smallest": 500, "largest": 500, "mean": 500.0},
        },
    },
    "relevance": {
        "name": "labels",
        "rule": "a shared label",
        "graded": False,
        "mean": 500.0,
        "chance": 0.01,
        "left_out": 0,
    },
    "method": {
        "name": "fourier",
        "bits": 64,
        "supervision": "labels",
        "params": {"a": 1},
        "pca": {"dim": None, "whiten": False},
        "parameters": 123,
        "chosen_epoch": 7,
    },
    "ranking": "hamming",
    "metrics": {"mAP": 0.3, "P@10": 0.6, "P@50": 0.5, "MRR": 0.7},
    "ties": {"mAP": {"expected": 0.3, "optimistic": 0.31, "pessimistic": 0.29}},
    "definitions": {"mAP@all/trec": 0.3, "precision@radius2": None},
    "reference": {
        "cosine": {"mAP": 0.19, "P@10": 0.47, "P@50": 0.4},
        "classifier": {
            "probabilities": {"mAP": 0.32, "P@10": 0.62, "P@50": 0.55},
            "predicted_class": {"mAP": 0.25, "P@10": 0.5, "P@50": 0.5},
            "accuracy": 0.7,
            "outputs": "softmax",
            "classes": 100,
            "parameters": 123,
            "chosen_epoch": 9,
        },
    },
    "loss": {
        "features": {"mAP": 0.19, "P@10": 0.47, "P@50": 0.4, "recall@10": 1.0},
        "codes": {"mAP": 0.31, "P@10": 0.44, "P@50": 0.5, "recall@10": 0.92},
        "index": {"mAP": 0.3, "P@10": 0.6, "P@50": 0.5, "recall@10": 0.9},
    },
    "search": {
        "index": "flat",
        "ranks": "method",
        "point": {},
        "candidates_mean": 50000,
        "candidates_fraction": 1.0,
        "queries_without_candidates": 0,
        "recall@10": 1.0,
        "recall@10/cosine": 0.9,
        "recall@10/codes": None,
        "recall@10/neighbors": None,
        "qps": 1000.0,
        "latency_ms": {"p50": 0.1, "p95": 0.2, "p99": 0.3},
    },
    "codes": {
        "bit_balance": 0.1,
        "bit_correlation": 0.2,
        "constant_bits": 0,
        "entropy_bits": 60.0,
        "code_entropy_bits": 15.0,
        "distinct_codes": 40000,
        "buckets": {"occupied": 40000, "largest": 9, "mean": 1.25, "seen": 2.0, "singletons": 35000, "gini": 0.2},
        "quantisation_loss": None,
    },
    "time_s": {
        "load": 0.1,
        "extract": 0.0,
        "fit": 1.0,
        "encode": 0.1,
        "index": 0.1,
        "search": 0.2,
        "evaluate": 0.3,
        "total": 2.0,
    },
    "memory": {
        "peak_rss_bytes": 10**9,
        "code_bytes": 400000,
        "index_bytes": 0,
        "feature_bytes": 0,
        "fixed_bytes": 0,
        "bytes_per_item": 8.0,
    },
    "environment": {
        "lshbench": "0.1.0",
        "python": "3.11",
        "torch": "2.6",
        "faiss": None,
        "cpu": "x",
        "threads": 2,
        "git": None,
        "directory": "/somewhere",
    },
}


def changed(path: str, value: object, content: dict[str, Any] = METRICS) -> dict[str, Any]:
    """Return the example with the value at a path of keys replaced, or left out by KeyError."""
    metrics = copy.deepcopy(content)
    *parents, last = path.split("/")
    node = metrics
    for parent in parents:
        node = node[parent]
    if value is KeyError:
        del node[last]
    else:
        node[last] = value
    return metrics


def make_run(
    path: Path,
    *,
    bits: int = 64,
    classes: int = 10,
    gallery: int = 2000,
    queries: int = 100,
    noise: float = 0.3,
    epochs: int = 12,
    dataset: str = "cifar10_images",
    method: str = "fourier",
    ranking: str = "hamming",
    reference: bool = True,
    classifier: bool = False,
    codes: bool = True,
    fraction: float = 1.0,
    settings: int = 1,
) -> Run:
    """Write a run's files, all but ``metrics.json``, and return it with its metrics.

    The codes of a class are noisy copies of a random one.
    """
    generator = np.random.default_rng(0)
    centres = generator.random((classes, bits)) < generator.uniform(0.2, 0.8, bits)
    labels = np.arange(gallery) % classes
    query_labels = np.arange(queries) % classes
    flips = generator.uniform(noise / 2, noise, bits)
    x = centres[labels] ^ (generator.random((gallery, bits)) < flips)
    q = centres[query_labels] ^ (generator.random((queries, bits)) < flips)
    distance = (q[:, None] ^ x[None]).sum(2) if queries * gallery * bits < 10**8 else _distances(q, x)
    same = query_labels[:, None] == labels
    order = np.argsort(distance, axis=1, kind="stable")
    hits = np.take_along_axis(same, order, axis=1)
    found = np.cumsum(hits, axis=1)
    precision = found / np.arange(1, gallery + 1)
    recall = found / np.maximum(found[:, -1:], 1)
    levels = np.linspace(0, 1, 101)
    curve = np.stack(
        [[p[r >= level].max(initial=0.0) for level in levels] for p, r in zip(precision, recall, strict=True)]
    ).mean(0)
    k = np.unique(np.geomspace(1, min(1000, gallery), 60).round().astype(int))
    at_k = precision[:, k - 1].mean(0)
    average = float(((precision * hits).sum(1) / np.maximum(hits.sum(1), 1)).mean())
    counts = [np.bincount(distance[mask], minlength=bits + 1) for mask in (same, ~same)]
    edges = np.arange(bits + 2) - 0.5
    if ranking == "cosine":
        edges = np.linspace(0, 2, bits + 2)

    metrics = copy.deepcopy(METRICS)
    metrics["dataset"] |= {"name": dataset, "gallery": gallery, "queries": queries, "classes": classes}
    metrics["method"] |= {"name": method, "bits": bits}
    metrics["ranking"] = ranking
    figures = {"mAP": average, "P@10": float(precision[:, 9].mean()), "P@50": float(precision[:, 49].mean())}
    metrics["metrics"] = figures
    metrics["reference"]["cosine"] = {key: 0.8 * value for key, value in figures.items()} if reference else None
    metrics["search"] |= {"candidates_fraction": fraction, "candidates_mean": fraction * gallery}
    metrics["search"]["latency_ms"] |= {"exact_batch": 2.0, "exact_p50": 5.0}
    if not codes:
        metrics["codes"] = dict.fromkeys(metrics["codes"])
    with RunFolder.claim(path) as folder:
        folder.write_tradeoff(_settings(settings, figures, fraction, gallery, reference))
        folder.write_curves(
            Curves(
                recall=levels,
                precision=curve,
                k=k,
                precision_at_k=at_k,
                precision_at_k_bounds=np.stack([at_k * 0.96, np.minimum(at_k * 1.04, 1)]),
                distance_edges=edges,
                same_class=counts[0],
                other_class=counts[1],
                bit_means=x.mean(0) if codes else None,
                reference_precision=curve * 0.8 if reference else None,
                reference_precision_at_k=at_k * 0.8 if reference else None,
                classifier_precision=curve * 0.9 if classifier else None,
                classifier_precision_at_k=at_k * 0.9 if classifier else None,
            )
        )
        if codes:
            folder.write_array("codes/gallery.npy", np.packbits(x, axis=1))
        else:
            folder.write_array("codes/gallery.npy", labels.astype(np.int32))
        if epochs:
            folder.write_training(_history(epochs), chosen_epoch=max(1, epochs - 3))
    return Run(path, RunMetrics.from_json(metrics))


def _settings(
    number: int, figures: dict[str, float], fraction: float, gallery: int, reference: bool
) -> dict[str, np.ndarray]:
    """Return the columns of settings that look at more and more, the last but one to no avail."""
    steps = np.arange(1, number + 1)
    share = steps / number
    better = np.where(steps == number - 1, 0.3, share**0.4)
    return {
        "probes": 2 ** (steps - 1),
        **{name: value * better for name, value in figures.items()},
        "recall@10/cosine": 0.95 * better if reference else np.full(number, np.nan),
        "candidates_mean": fraction * gallery * share,
        "candidates_fraction": fraction * share,
        "queries_without_candidates": np.zeros(number, np.int64),
        "qps": 9000 / share,
        "qps_with_encoding": 8000 / share,
        "bytes_per_item": np.full(number, 38.6),
    }


def _distances(q: np.ndarray, x: np.ndarray) -> np.ndarray:
    q, x = q.astype(np.float32), x.astype(np.float32)
    return np.rint(q.sum(1)[:, None] + x.sum(1) - 2 * q @ x.T).astype(np.int64)


def _history(epochs: int) -> list[dict[str, Any]]:
    generator = np.random.default_rng(1)
    return [
        {
            "epoch": epoch,
            "loss": 2.3 * float(np.exp(-epoch / 6)) + 0.2 + 0.02 * float(generator.normal()),
            "validation": 0.7 - 0.5 * float(np.exp(-epoch / 4)) - (0.01 * max(0, epoch - epochs + 3)),
            "terms": {},
        }
        for epoch in range(1, epochs + 1)
    ]
