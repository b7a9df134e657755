"""The reference beside runs that used labels: what labels give without a code.

A classifier is trained with the head and the budget of the run's method, on the same items.  It ranks the gallery in
two ways: by the probability that an item has the query's class, and by the trivial code, the number of the predicted
class (Sablayrolles, Douze, Usunier and Jégou, How should we evaluate supervised hashing?, ICASSP 2017, arXiv
1609.06753: where the queries' classes are those of training, that code is hard to beat).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lshbench.evaluation.evaluate import evaluate
from lshbench.evaluation.reference import content_of
from lshbench.ranking.cosine import VectorGallery, product_blocks
from lshbench.ranking.hamming import hamming_blocks
from lshbench.runtime import scratch
from lshbench.runtime.device import resolve_device
from lshbench.runtime.kept import Arrays, content_digest, kept
from lshbench.types import Codes, Features, Progress, Relevance

VERSION = 2
"""Part of the key: after a change to what is computed, older results are not found."""

ROWS = 1 << 16
"""Items whose predicted classes are found at a time."""


class MappedGallery(VectorGallery):
    """Gallery vectors in a file, of which no more than a tile's pages are held."""

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Return rows ``start`` to ``stop``, and let go of those before."""
        scratch.release(self.vectors)
        return super().rows(start, stop)


@dataclass(frozen=True)
class ClassifierReference:
    """Figures of a classifier that was trained beside a method.

    Attributes:
        figures: as ``reference.classifier`` of ``metrics.json`` has them.
        precision, precision_at_k: of the ranking by probabilities, over recall and over k, as in
            :class:`lshbench.metrics.curves.Curves`.
    """

    figures: dict[str, Any]
    precision: np.ndarray
    precision_at_k: np.ndarray


def classifier_reference(
    train: Features,
    gallery: Features,
    queries: Features,
    relevance: Relevance,
    settings: Mapping[str, Any],
    seed: int,
    device: str,
    cache: Path,
    progress: Progress,
) -> ClassifierReference:
    """Return the figures of a classifier, from the cache if they are there.

    Args:
        train: the training items, all that it learns from.
        gallery, queries: features; the queries' labels say how often it is right.
        relevance: of the gallery to the queries.
        settings: ``head`` and ``training`` of the method beside which it stands, their values in effect.
        seed: decides what is drawn.
        device: where it is trained, such as ``auto``.
        cache: the cache folder.
        progress: reports training and ranking.
    """
    chosen = {"head": settings["head"], "training": settings["training"], "seed": seed}
    where = resolve_device(device)
    parts = [json.dumps({"version": VERSION, "device": where.type, **chosen}, sort_keys=True)]
    parts += [content_digest(side.x, side.y) for side in (train, gallery, queries)] + [content_of(relevance)]
    path = cache / "references" / f"classifier-{hashlib.sha256(' '.join(parts).encode()).hexdigest()}.npz"

    def compute() -> Arrays:
        from lshbench.training.classifier import train_classifier
        from lshbench.training.heads import Head
        from lshbench.training.settings import Training

        head, training = Head.of(chosen["head"]), Training.of(chosen["training"])
        classifier = train_classifier(train, head, training, seed, where, progress)
        known, asked = classifier.probabilities(gallery.x), classifier.probabilities(queries.x)
        # The product: how probable it is that two items have one class, or how many they are expected to share.
        unscaled = MappedGallery(known, np.ones(len(known), np.float32), scaled=False)
        blocks = product_blocks(asked, unscaled, relevance, positions=False)
        ranked = evaluate(blocks, len(queries), progress, "ranking by class probabilities, the reference")
        blocks = hamming_blocks(_predicted(asked), _predicted(known), relevance, positions=0)
        trivial = evaluate(blocks, len(queries), progress, "ranking by predicted classes, the reference")
        figures = {
            "probabilities": ranked.summary["metrics"],
            "predicted_class": trivial.summary["metrics"],
            "accuracy": float(classifier.correct(asked, queries.y).mean()),
            "outputs": "sigmoid" if classifier.several else "softmax",
            "classes": len(classifier.classes),
            "parameters": classifier.parameters,
            "chosen_epoch": classifier.chosen_epoch,
        }
        curves = {"precision": ranked.curves.precision, "precision_at_k": ranked.curves.precision_at_k}
        return {"figures": np.array(json.dumps(figures)), **curves}

    found = kept(path, "the classifier's figures", compute, _is_whole)
    return ClassifierReference(**(found | {"figures": json.loads(str(found["figures"]))}))


def _predicted(probabilities: np.ndarray) -> Codes:
    """Return codes of one bit for each class, that of the most probable one set: any two classes are 2 apart."""
    rows, classes = probabilities.shape
    packed = np.zeros((rows, -(-classes // 8)), np.uint8)
    for start in range(0, rows, ROWS):
        predicted = probabilities[start : start + ROWS].argmax(1)
        packed[np.arange(start, start + len(predicted)), predicted // 8] = 128 >> predicted % 8
        scratch.release(probabilities)
    return Codes(packed, classes)


def _is_whole(arrays: Arrays) -> bool:
    """Return whether arrays are those of a classifier's figures."""
    return arrays.keys() == {"figures", "precision", "precision_at_k"} and bool(json.loads(str(arrays["figures"])))
