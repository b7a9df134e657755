"""One run, top to bottom: data, features, split, fit, encode, index, ranking, metrics, run folder.

Names no concrete data set, method or index: the configuration decides.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from lshbench.config import Identity, build, check_root, identity
from lshbench.data.base import Dataset
from lshbench.errors import DivergedError, UsageError
from lshbench.evaluation.asymmetric_hamming import asymmetric_hamming
from lshbench.evaluation.classifier import ClassifierReference, classifier_reference
from lshbench.evaluation.code_recall import code_recall
from lshbench.evaluation.evaluate import Evaluation
from lshbench.evaluation.loss import Loss, code_measures, feature_measures, index_measures
from lshbench.evaluation.reference import Reference, cosine_reference
from lshbench.evaluation.timing import Clock, time_exact_scan
from lshbench.evaluation.tradeoff import Measured, Queries, measure_points, overlap
from lshbench.inputs import Inputs, OpenedData
from lshbench.metrics.curves import Curves
from lshbench.metrics.diagnostics import bit_counts, diagnose
from lshbench.protocols.audit import audit, check_overlap, near_copies
from lshbench.protocols.splits import Selection
from lshbench.ranking.listed import first_kept, relevant_results
from lshbench.relevance.base import GroundTruth
from lshbench.report.summary import print_summary
from lshbench.run_folder import Run, RunFolder, computing, find_finished
from lshbench.run_folder.contents import CONFIG, GALLERY_CODES, GALLERY_LABELS, QUERY_CODES, QUERY_LABELS
from lshbench.run_folder.items import write_gallery_items
from lshbench.run_folder.metrics import (
    SCHEMA_VERSION,
    ClassifierMetrics,
    CodeMetrics,
    DatasetMetrics,
    LossMetrics,
    MemoryMetrics,
    MethodMetrics,
    ProtocolMetrics,
    ReferenceMetrics,
    RelevanceMetrics,
    RunMetrics,
    SearchMetrics,
    Ties,
)
from lshbench.runtime import scratch
from lshbench.runtime.cache import cache_dir
from lshbench.runtime.checkpoints import checkpoint_file
from lshbench.runtime.environment import environment, peak_memory_bytes
from lshbench.runtime.logs import console, output_console
from lshbench.runtime.own import own_key
from lshbench.runtime.progress import progress_for
from lshbench.runtime.shared_work import sharing
from lshbench.runtime.threads import available_cores, set_threads
from lshbench.system import System
from lshbench.trackers.base import Tracker
from lshbench.types import (
    RESULTS,
    Clusters,
    Codes,
    Encoded,
    Features,
    Neighbors,
    Progress,
    Quantised,
    Relevance,
    Vectors,
    is_unlabelled,
)

if TYPE_CHECKING:
    from rich.console import Console

log = logging.getLogger(__name__)

PER_QUERY = ("AP", "AP_optimistic", "AP_pessimistic", "P@10", "P@50", "RR", "R-precision")
"""Measures that are kept for each query."""

SHOWN = 10
"""Results of each query that are kept with whether they are right."""


@dataclass(frozen=True)
class Experiment:
    """A run's parts, built and checked before any expensive work.

    Attributes:
        config: the resolved configuration, kept with the run.
        command: what repeats the run.
    """

    config: dict[str, Any]
    command: list[str]
    inputs: Inputs
    system: System
    tracker: Tracker

    @classmethod
    def from_config(cls, config: dict[str, Any], command: list[str]) -> Self:
        """Return the experiment that a resolved configuration describes.

        Raises:
            UsageError: a key or value that can't be used, or choices that don't go together.
        """
        check_root(config)
        threads = config["threads"] or available_cores()
        inputs = Inputs.from_config(config, threads, cache_dir(config["cache"]))
        system = System.from_config(config)
        tracker = build(config, "tracker", Tracker)
        set_threads(threads)
        return cls(config, command, inputs, system, tracker)


def run_config(
    config: dict[str, Any],
    folder: Path,
    command: list[str],
    progress: Progress | None = None,
    show: Callable[[Run, Console], None] | None = print_summary,
) -> Run:
    """Run one experiment, or find it finished, and print its summary.

    Args:
        config: the resolved configuration, plain dictionaries and values.
        folder: where the run's files go.
        command: what repeats the run.
        progress: receives the progress of long work; by default bars on a terminal, else log lines.
        show: prints the finished run; None prints nothing.

    Returns:
        The run, or the finished one that is the same.

    Raises:
        UsageError: wrong use, before any expensive work wherever it can be seen that early.
    """
    clock, progress = Clock(), progress or progress_for(console())
    experiment = Experiment.from_config(config, command)
    with clock.measure("load"):
        data = experiment.inputs.open(progress)
    method = experiment.system.method
    check_overlap(experiment.inputs.protocol, data.selection, method.supervision)
    experiment.system.check_labels(data.dataset.labels)
    _log_device(config, data)
    encoder = experiment.inputs.encoder(data, progress)
    names = identity(config, method.in_effect(), data.fingerprint, encoder)
    output, resume = Path(config["output"]), config["resume"] is True
    # Of two processes that come to the same run, the second waits and finds it finished.
    with computing(output, names.run) if resume else nullcontext():
        finished = find_finished(output, names.run) if resume else None
        if finished is not None:
            log.info("already finished in %s", finished)
            RunFolder.discard(folder)
            run = Run.open(finished)
        else:
            RunFolder.discard_unfinished(folder.parent)
            kept = experiment.inputs.cache / "checkpoints" / names.run
            with RunFolder.claim(folder) as run_folder, checkpoint_file(kept) as method.checkpoint:
                run = run_experiment(experiment, data, names, run_folder, clock, progress)
    if finished is None:  # and nobody waits for the run any more: a tracker may take its time
        _tracked(experiment.tracker, run)
    if show is not None:
        show(run, output_console())
    return run


def run_experiment(
    experiment: Experiment,
    data: OpenedData,
    names: Identity,
    folder: RunFolder,
    clock: Clock,
    progress: Progress,
) -> Run:
    """Run an experiment and write its folder; its result is written last."""
    config, inputs, system = experiment.config, experiment.inputs, experiment.system
    folder.write_yaml(CONFIG, config)

    with clock.measure("load"):
        roles = inputs.load(data, progress)
    clock.move("load", "extract", roles.seconds_extracting)
    gallery, queries, train = roles.gallery, roles.queries, roles.train
    # Images that can't be read may have been left out.
    present = Selection(queries=queries.ids, gallery=gallery.ids, train=train.ids)
    with clock.measure("relevance"):
        truth = inputs.ground_truth(data, gallery, queries, progress)
    relevance = truth.relevance
    supervision = system.method.supervision
    audited = audit(inputs.protocol, present, data.dataset.labels, roles.digests, relevance.listed, supervision)
    counts = (len(gallery), len(queries), len(train), gallery.x.shape[1])
    log.info("%d gallery, %d queries, %d training items; features of %d numbers", *counts)

    with clock.measure("fit"), sharing(inputs.cache / "shared_work", inputs.threads):
        system.fit(train, progress)
    with clock.measure("encode"):
        gallery_codes, query_codes = system.encode(gallery.x, "gallery"), system.encode(queries.x, "query")
    with clock.measure("index"):
        system.build(gallery_codes)
    scratch.trim()  # mapped features need room next

    nearest = min(RESULTS, len(gallery))
    reference, scan = None, {}
    if config["reference"]["cosine"]:
        with clock.measure("reference"):
            reference = cosine_reference(gallery, queries, relevance, inputs.cache, progress)
        if config["reference"]["time"]:
            with clock.measure("timing"):
                scan = time_exact_scan(gallery.x, queries.x, nearest)
    classifier, settings = None, _classifier_settings(config, system)
    if settings is not None and not is_unlabelled(queries.y):
        with clock.measure("classifier"):
            sides, drawn = (train, gallery, queries), (config["seed"], config["device"])
            try:
                classifier = classifier_reference(*sides, relevance, settings, *drawn, inputs.cache, progress)
            except DivergedError as error:
                log.warning("no classifier stands beside this run: %s", error)
    measured = measure_points(
        system.index,
        Queries(query_codes, relevance, lambda start, stop: system.encode(queries.x[start:stop], "query")),
        reference,
        k=nearest,
        definitions=config["evaluation"]["definitions"],
        description=f"ranking by {system.ranking}",
        clock=clock,
        progress=progress,
    )

    definitions: dict[str, float | None] = {}
    if config["evaluation"]["definitions"]:
        with clock.measure("evaluate"):
            squashed = asymmetric_hamming(system.index, query_codes, relevance)
        definitions = measured.evaluation.summary["definitions"] | squashed
    codes, recall_of_codes = None, None
    with clock.measure("loss"):
        of_index = index_measures(system.index, measured, query_codes, relevance, reference)
    if config["evaluation"]["loss"] or system.index.exhaustive:
        with clock.measure("loss"):
            ranked = (system.index, of_index, gallery_codes, query_codes, relevance)
            codes = code_measures(*ranked, reference, progress)
            recall_of_codes = code_recall(system.index, measured, gallery_codes, query_codes, relevance)
    loss = Loss(feature_measures(reference), codes, of_index)
    search, evaluation = measured.search, measured.evaluation
    near = None if reference is None else near_copies(queries.x, gallery.x, reference.neighbors[:, 0])
    shown = search.neighbors
    pictures = config["evaluation"]["plots"] and data.dataset.kind == "images"
    if pictures and system.ranking == "hamming":
        with clock.measure("plots"):
            shown = _ties_broken(system, gallery, queries, relevance, search.neighbors)
    right = relevant_results(relevance, shown.ids[:, :SHOWN])

    with clock.measure("write"):
        _write_codes(folder, gallery_codes, query_codes)
        folder.write_array(GALLERY_LABELS, gallery.y)
        folder.write_array(QUERY_LABELS, queries.y)
        system.save(folder, config)
        _write_items(folder, data.dataset, gallery.ids)
        folder.write_neighbors(search.neighbors)
        per_query = {name: evaluation.measures[name] for name in PER_QUERY}
        folder.write_per_query(queries=queries.ids, labels=queries.y, measures=per_query, neighbors=shown, right=right)
        folder.write_tradeoff(measured.columns())
        folder.write_curves(_curves(evaluation, reference, classifier, gallery_codes.codes))
        if system.method.history:
            epochs = [asdict(epoch) for epoch in system.method.history]
            folder.write_training(epochs, system.method.chosen_epoch)
    metrics = RunMetrics(
        schema_version=SCHEMA_VERSION,
        run_id=names.run,
        configuration_id=names.configuration,
        source=names.source,
        created=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        command=experiment.command,
        seed=config["seed"],
        dataset=DatasetMetrics(
            name=data.dataset.name,
            gallery=len(gallery),
            queries=len(queries),
            train=len(train),
            classes=audited["classes"]["gallery"]["count"],
            dim=gallery.x.shape[1],
            backbone=inputs.backbone.name if data.dataset.kind == "images" else None,
            fingerprint=data.fingerprint,
            queries_without_relevant=evaluation.summary["counts"]["queries_without_relevant"],
            unanswered=str(data.unanswered) if data.unanswered.count else None,
        ),
        relevance=_relevance_metrics(config["relevance"]["name"], truth, evaluation),
        protocol=ProtocolMetrics.from_json(
            {
                "name": config["protocol"]["name"],
                **audited,
                "near_copies": near,
                "definition": inputs.protocol.definition,
            }
        ),
        method=MethodMetrics(
            name=config["method"]["name"],
            bits=system.method.bits,
            supervision=system.method.supervision,
            params=system.method.in_effect(),
            pca=config["pca"],
            parameters=system.method.parameters,
            chosen_epoch=system.method.chosen_epoch,
        ),
        ranking=system.ranking,
        metrics=evaluation.summary["metrics"],
        ties={name: Ties(**bounds) for name, bounds in evaluation.summary["ties"].items()},
        definitions=definitions,
        reference=ReferenceMetrics(
            reference.metrics if reference else None,
            classifier=ClassifierMetrics.from_json(classifier.figures) if classifier else None,
        ),
        loss=LossMetrics(loss.features, loss.codes, loss.index),
        search=_search_metrics(experiment, measured, truth, scan, recall_of_codes),
        codes=_code_metrics(gallery_codes.codes, config["seed"]),
        time_s=clock.parts(),
        memory=_memory_metrics(system),
        environment={**environment(inputs.threads, inputs.device), "directory": str(Path.cwd()), "busy": search.busy},
    )
    run = Run(folder.path, metrics)
    if config["evaluation"]["plots"]:
        from lshbench.plots.draw import draw_all, draw_retrieval, keep_thumbnails

        with clock.measure("plots"):
            _drawn(partial(draw_all, run))
            if pictures:
                parts = (run, data.dataset, gallery, queries, shown)
                _drawn(partial(draw_retrieval, *parts, right))
                _drawn(partial(keep_thumbnails, *parts))
        metrics = replace(metrics, time_s=clock.parts())
    folder.finish(metrics, own_key(make=True))
    return Run(folder.path, metrics)


def _log_device(config: dict[str, Any], data: OpenedData) -> None:
    """Say so where a device was asked for that nothing, or the image encoder alone, will use."""
    device, method = config["device"], config["method"]
    if device in ("auto", "cpu") or "device" in method:
        return
    use = "only images are encoded there" if data.dataset.kind == "images" else "nothing is computed there"
    log.warning("device=%s: %s; method=%s has no network, and runs on the CPU", device, use, method["name"])


def _write_codes(folder: RunFolder, *sides: Encoded) -> None:
    for name, codes in zip((GALLERY_CODES, QUERY_CODES), (side.codes for side in sides), strict=True):
        if isinstance(codes, Quantised):
            folder.write_array(name, codes.stored)
        elif isinstance(codes, Vectors):
            folder.write_array(name, codes.x)
        elif isinstance(codes, Codes):
            folder.write_array(name, codes.packed)
        elif isinstance(codes, Clusters):
            folder.write_array(name, np.ascontiguousarray(codes.numbers[:, 0]))


def _write_items(folder: RunFolder, dataset: Dataset, items: np.ndarray) -> None:
    located = (dataset.locate(int(item)) for item in items)
    names = (split.describe(row) for split, row in located)
    write_gallery_items(folder, items, names, dataset.gallery.class_names)


def _classifier_settings(config: dict[str, Any], system: System) -> dict[str, Any] | None:
    """Return the head and the budget of the classifier beside a run; None where none stands beside it."""
    if not config["reference"]["classifier"] or system.method.supervision != "labels":
        return None
    settings = system.method.in_effect()
    if not {"head", "training"} <= settings.keys():
        log.warning("no classifier stands beside method=%s: it has no keys head and training", config["method"]["name"])
        return None
    return settings


def _curves(
    evaluation: Evaluation, reference: Reference | None, classifier: ClassifierReference | None, codes: object
) -> Curves:
    return replace(
        evaluation.curves,
        bit_means=bit_counts(codes) / len(codes) if isinstance(codes, Codes) else None,
        reference_precision=reference.precision if reference else None,
        reference_precision_at_k=reference.precision_at_k if reference else None,
        classifier_precision=classifier.precision if classifier else None,
        classifier_precision_at_k=classifier.precision_at_k if classifier else None,
    )


def _ties_broken(
    system: System, gallery: Features, queries: Features, relevance: Relevance, neighbors: Neighbors
) -> Neighbors:
    """Return neighbours in which ties of the queries whose hits are shown as pictures are broken by cosine."""
    from lshbench.plots.retrieval import shown_queries

    rows = shown_queries(queries.y)
    encoded = system.encode(queries.x[rows], "query")
    kept = neighbors.ids.shape[1]
    asked = min(kept + relevance.most_left_out, len(gallery))
    found = first_kept(system.search_for_people(encoded, asked, gallery.x), relevance.of_queries(rows), kept)
    ids, tied = neighbors.ids.copy(), np.zeros(neighbors.ids.shape, np.int64)
    assert found.tied is not None
    ids[rows], tied[rows] = found.ids, found.tied
    return replace(neighbors, ids=ids, tied=tied)


def _relevance_metrics(name: str, truth: GroundTruth, evaluation: Evaluation) -> RelevanceMetrics:
    relevance = truth.relevance
    mean = float(evaluation.measures["relevant"].mean())
    return RelevanceMetrics(
        name=name,
        rule=truth.rule,
        graded=relevance.listed is not None and relevance.listed.graded,
        mean=mean,
        chance=mean / len(relevance.gallery),
        left_out=0 if relevance.listed is None else int(relevance.listed.left_out.sum()),
    )


def _search_metrics(
    experiment: Experiment,
    measured: Measured,
    truth: GroundTruth,
    scan: dict[str, float],
    codes: dict[str, float | None] | None,
) -> SearchMetrics:
    index, true = experiment.system.index, truth.neighbors
    return SearchMetrics(
        index=experiment.config["index"]["name"],
        ranks="features" if index.gives == "nothing" else "method",
        point=measured.point,
        **asdict(measured.cost),
        recall_at_10=1.0 if index.exhaustive else measured.recall if index.ranks_features else None,
        recall_at_10_cosine=measured.recall,
        recall_at_10_codes=codes,
        recall_at_10_neighbors=None if true is None else overlap(measured.search.neighbors.ids, true, 10),
        qps=measured.search.qps,
        latency_ms={**measured.search.latency_ms, **scan},
    )


def _memory_metrics(system: System) -> MemoryMetrics:
    index = system.index
    return MemoryMetrics(
        peak_rss_bytes=peak_memory_bytes(),
        code_bytes=index.code_bytes,
        index_bytes=index.bytes - index.code_bytes,
        feature_bytes=index.feature_bytes,
        fixed_bytes=index.fixed_bytes,
        bytes_per_item=index.bytes_per_item(),
    )


def _code_metrics(codes: object, seed: int) -> CodeMetrics:
    if not isinstance(codes, Codes):
        return CodeMetrics()
    return CodeMetrics.from_json(diagnose(codes, codes.projections, seed=seed))


def _tracked(tracker: Tracker, run: Run) -> None:
    """Send a finished run, and go on where that fails: the run is whole without it."""
    try:
        tracker.log(run)
    except Exception as error:
        log.warning("the run was not sent to the tracker: %s: %s", type(error).__name__, error, exc_info=error)


def _drawn(draw: Callable[[], object]) -> None:
    """Draw, and go on without a picture that can't be drawn: the figures behind it took hours, perhaps."""
    try:
        draw()
    except UsageError:
        raise
    except Exception as error:
        log.warning("a plot is missing: %s: %s", type(error).__name__, error, exc_info=error)
