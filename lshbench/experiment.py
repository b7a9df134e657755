"""One run, top to bottom: data, features, split, fit, encode, index, ranking, metrics, run folder.

Names no concrete data set, method or index: what it is given decides.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from lshbench import __version__
from lshbench.config import identity
from lshbench.data.base import Dataset, Source
from lshbench.errors import UsageError
from lshbench.evaluation.evaluate import Evaluation
from lshbench.evaluation.reference import Reference, cosine_reference
from lshbench.evaluation.timing import Clock, time_exact_scan
from lshbench.evaluation.tradeoff import Measured, measure_points
from lshbench.features.backbone import Backbone
from lshbench.features.roles import load_roles
from lshbench.index.base import Index
from lshbench.methods.base import Method
from lshbench.metrics.diagnostics import bit_counts, diagnose
from lshbench.metrics.measures import AP_CUTOFFS
from lshbench.plots import draw_all, draw_retrieval
from lshbench.protocols.audit import audit, check_overlap
from lshbench.protocols.splits import EvaluationProtocol, Selection
from lshbench.run_folder import SCHEMA_VERSION, Curves, RunFolder
from lshbench.run_folder.contents import MODEL_DESCRIPTION
from lshbench.run_folder.items import write_gallery_items
from lshbench.runtime.environment import environment, peak_memory_bytes
from lshbench.training.pca import PCA
from lshbench.types import Encoded, Features, Progress, Relevance, Side

log = logging.getLogger(__name__)

NEIGHBORS = 100
"""First results kept, and timed, for each query."""


@dataclass(frozen=True)
class Experiment:
    """Everything that a run needs, checked.

    Attributes:
        config: the resolved configuration, kept with the run.
        command: what repeats the run.
        ranking: ``hamming`` or ``cosine``.
        threads: of every library.
        cache: the folder of features, references and checkpoints.
    """

    config: dict[str, Any]
    command: list[str]
    dataset: Source
    backbone: Backbone
    protocol: EvaluationProtocol
    pca: PCA | None
    method: Method
    index: Index
    ranking: str
    threads: int
    cache: Path


@dataclass(frozen=True)
class Prepared:
    """An experiment whose data set is open, and so has an identity.

    Attributes:
        run_id: names what will be computed (:func:`lshbench.config.identity`).
    """

    experiment: Experiment
    dataset: Dataset
    selection: Selection
    fingerprint: str
    run_id: str
    clock: Clock


def prepare(experiment: Experiment, progress: Progress) -> Prepared:
    """Open the data set, read its labels and settle who is query, gallery and training."""
    clock = Clock()
    with clock.measure("load"):
        dataset = experiment.dataset.open(experiment.cache, progress)
        selection = experiment.protocol.select(
            dataset,
            experiment.config["seed"],
            experiment.dataset.max_gallery,
            experiment.dataset.max_queries,
        )
        fingerprint = dataset.fingerprint(selection.items())
    check_overlap(experiment.protocol, selection)
    run_id = identity(experiment.config, fingerprint, __version__)
    return Prepared(experiment, dataset, selection, fingerprint, run_id, clock)


def run_experiment(prepared: Prepared, folder: RunFolder, progress: Progress) -> dict[str, Any]:
    """Run an experiment and write its folder; return what ``metrics.json``, written last, holds."""
    experiment, dataset, selection, clock = (
        prepared.experiment,
        prepared.dataset,
        prepared.selection,
        prepared.clock,
    )
    config, method, index, reduction = experiment.config, experiment.method, experiment.index, experiment.pca
    folder.write_yaml("config.yaml", config)

    labels = dataset.labels
    with clock.measure("load"):
        roles = load_roles(
            dataset,
            asdict(selection),
            experiment.backbone,
            cache=experiment.cache,
            device=config["device"],
            threads=experiment.threads,
            progress=progress,
        )
    clock.move("load", "extract", roles.seconds_extracting)
    gallery, queries, train = roles.gallery, roles.queries, roles.train
    # Images that can't be read may have been left out.
    present = Selection(queries=queries.ids, gallery=gallery.ids, train=train.ids)
    audited = audit(experiment.protocol, present, labels, roles.digests)
    log.info(
        "%d gallery, %d queries, %d training items; features of %d numbers",
        len(gallery),
        len(queries),
        len(train),
        gallery.x.shape[1],
    )

    with clock.measure("fit"):
        if reduction is not None:
            reduction.fit(train.x)
        reduce = _same if reduction is None else reduction.transform
        method.fit(Features(reduce(train.x), train.y, train.ids), progress)

    def encode(items: Features, side: Side, rows: slice = slice(None)) -> Encoded:
        embedding = method.kind == "binary" and index.wants_embedding(side, experiment.ranking)
        x = items.x[rows]
        return method.encode(reduce(x), side, vectors=x, embedding=embedding)

    with clock.measure("encode"):
        gallery_codes, query_codes = encode(gallery, "gallery"), encode(queries, "query")
    with clock.measure("index"):
        index.build(gallery_codes, experiment.ranking)

    nearest = min(NEIGHBORS, len(gallery))
    reference, scan = None, {}
    if config["reference"]["cosine"]:
        with clock.measure("reference"):
            reference = cosine_reference(gallery, queries, experiment.cache, progress)
            if config["reference"]["time"]:
                scan = time_exact_scan(gallery.x, queries.x, nearest)
    measured = measure_points(
        index,
        query_codes,
        Relevance(queries.y, gallery.y),
        lambda start, stop: encode(queries, "query", slice(start, stop)),
        reference,
        k=nearest,
        positions=config["evaluation"]["definitions"],
        position_limit=max(AP_CUTOFFS),
        description=f"ranking by {experiment.ranking}",
        clock=clock,
        progress=progress,
    )
    search, evaluation = measured.search, measured.evaluation

    with clock.measure("write"):
        _write_codes(folder, gallery_codes, query_codes, gallery, queries)
        _write_model(folder, experiment)
        with folder.directory("index") as path:
            index.save(path)
        _write_items(folder, dataset, gallery)
        folder.write_neighbors(search.neighbors)
        folder.write_per_query(
            queries=queries.ids, labels=queries.y, measures=_headline(evaluation), neighbors=search.neighbors
        )
        folder.write_tradeoff(measured.columns())
        folder.write_curves(_curves(evaluation, reference, gallery_codes))
        if method.history:
            folder.write_training([asdict(epoch) for epoch in method.history], method.chosen_epoch)
    metrics = {
        "schema_version": SCHEMA_VERSION,
        "run_id": prepared.run_id,
        "created": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "command": experiment.command,
        "seed": config["seed"],
        "dataset": {
            "name": dataset.name,
            "gallery": len(gallery),
            "queries": len(queries),
            "train": len(train),
            "classes": int(audited["classes"]["gallery"]["count"]),
            "dim": gallery.x.shape[1],
            "backbone": experiment.backbone.label if dataset.kind == "images" else None,
            "fingerprint": prepared.fingerprint,
            "queries_without_relevant": evaluation.summary["counts"]["queries_without_relevant"],
        },
        "protocol": {"name": config["protocol"]["name"], **audited},
        "method": {
            "name": config["method"]["name"],
            "bits": method.bits,
            "supervision": method.supervision,
            "params": _parameters(config["method"] | method.in_effect()),
            "pca": config["pca"],
            "parameters": method.parameters,
            "chosen_epoch": method.chosen_epoch,
        },
        "ranking": experiment.ranking,
        "metrics": evaluation.summary["metrics"],
        "ties": evaluation.summary["ties"],
        "definitions": evaluation.summary["definitions"] if config["evaluation"]["definitions"] else {},
        "reference": {"cosine": reference.metrics if reference else None},
        "search": _search(experiment, measured, reference, scan),
        "codes": _diagnostics(gallery_codes, config["seed"]),
        "time_s": {**clock.seconds, "total": clock.total()},
        "memory": {
            "peak_rss_bytes": peak_memory_bytes(),
            "index_bytes": index.bytes,
            "bytes_per_item": index.bytes / len(gallery),
        },
        "environment": environment(experiment.threads),
    }
    if config["evaluation"]["plots"]:
        _drawn(partial(draw_all, folder.path, metrics))
        if dataset.kind == "images":
            _drawn(partial(draw_retrieval, folder.path, metrics, dataset, gallery, queries, search.neighbors))
    folder.finish(metrics)
    return metrics


def _drawn(draw: Callable[[], object]) -> None:
    """Draw, and go on without a picture that can't be drawn: the figures behind it took hours, perhaps."""
    try:
        draw()
    except UsageError:
        raise
    except Exception as error:
        log.warning("a plot is missing: %s: %s", type(error).__name__, error, exc_info=error)


def _same(x: np.ndarray) -> np.ndarray:
    return x


def _parameters(node: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in node.items() if key not in ("name", "_target_", "bits", "seed", "device")}


def _write_codes(
    folder: RunFolder, gallery_codes: Encoded, query_codes: Encoded, gallery: Features, queries: Features
) -> None:
    for name, encoded, items in (("gallery", gallery_codes, gallery), ("queries", query_codes, queries)):
        if encoded.codes is not None:
            folder.write_array(f"codes/{name}.npy", encoded.codes.packed)
        elif encoded.clusters is not None:
            folder.write_array(f"codes/{name}.npy", np.ascontiguousarray(encoded.clusters[:, 0]))
        label = "gallery" if name == "gallery" else "query"
        folder.write_array(f"codes/{label}_labels.npy", items.y)


def _write_model(folder: RunFolder, experiment: Experiment) -> None:
    config = experiment.config
    folder.write_safetensors("model/method.safetensors", experiment.method.state(), {})
    if experiment.pca is not None:
        folder.write_safetensors("model/pca.safetensors", experiment.pca.state(), {})
    folder.write_json(
        MODEL_DESCRIPTION,
        {
            # With what the recipe stood for: later versions may change that.
            "method": config["method"] | experiment.method.in_effect(),
            "pca": config["pca"],
            "backbone": config["backbone"],
            "index": config["index"],
        },
    )


def _write_items(folder: RunFolder, dataset: Dataset, gallery: Features) -> None:
    located = (dataset.locate(int(item)) for item in gallery.ids)
    names = (split.describe(row) for split, row in located)
    write_gallery_items(folder, gallery.ids, names, dataset.gallery.class_names)


def _headline(evaluation: Evaluation) -> dict[str, np.ndarray]:
    names = ("AP", "AP_optimistic", "AP_pessimistic", "P@10", "P@50", "RR", "R-precision")
    return {name: evaluation.measures[name] for name in names}


def _curves(evaluation: Evaluation, reference: Reference | None, gallery_codes: Encoded) -> Curves:
    codes = gallery_codes.codes
    return Curves.from_summary(
        evaluation.curves,
        bit_means=None if codes is None else bit_counts(codes) / len(codes),
        reference=reference.curves if reference else None,
    )


def _search(
    experiment: Experiment, measured: Measured, reference: Reference | None, scan: dict[str, float]
) -> dict[str, Any]:
    row = measured.rows[-1]
    cosine = row["recall@10/cosine"]
    return {
        "index": experiment.config["index"]["name"],
        "ranks": "method" if experiment.index.uses_method else "features",
        "point": measured.point,
        **{key: row[key] for key in ("candidates_mean", "candidates_fraction", "queries_without_candidates")},
        "recall@10": 1.0 if experiment.index.exhaustive else cosine if experiment.index.ranks_features else None,
        "recall@10/cosine": cosine,
        "qps": measured.search.qps,
        "latency_ms": {**measured.search.latency_ms, **scan},
    }


def _diagnostics(gallery_codes: Encoded, seed: int) -> dict[str, Any]:
    if gallery_codes.codes is None:
        return dict.fromkeys(("bit_balance", "bit_correlation", "entropy_bits", "distinct_codes"))
    return dict(diagnose(gallery_codes.codes, gallery_codes.embedding, seed=seed))
