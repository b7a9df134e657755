"""Types of a run's result, which ``metrics.json`` holds.

Fields have the names of the file's keys; where a key is no Python name, such as ``recall@10``, the field's metadata has
it.  Maps whose keys depend on what was measured stay mappings, of which some keys are always there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Self, Union, get_args, get_origin, get_type_hints

from lshbench.errors import UsageError

SCHEMA_VERSION = 1

Figures = Mapping[str, float | None]
"""Figures by name; None for one that is not defined, or not known."""

Headline = Annotated[Figures, ("mAP", "P@10", "P@50")]
"""Means over queries.  The strings of an ``Annotated`` mapping are the keys that are always there."""


Steps = Annotated[Figures, ("mAP", "P@10", "P@50", "recall@10")]
"""Measures that :class:`LossMetrics` has of each step; ``recall@10`` is of the first ten by exact cosine."""

CodeRecall = Annotated[Figures, ("item", "distance", "rescored_item", "rescored_distance")]
"""Shares of the first ten by exact Hamming distance (:mod:`lshbench.evaluation.code_recall`)."""


class Record:
    """Base class of the dataclasses below, with conversion to and from JSON."""

    def to_json(self) -> dict[str, Any]:
        """Return the fields under the keys of ``metrics.json``, as dictionaries, lists and plain values."""
        return {key: _to_json(getattr(self, name)) for key, (name, _) in self.keys().items()}

    @classmethod
    def from_json(cls, content: object, source: str | Path = "metrics.json") -> Self:
        """Return the record that :meth:`to_json` gave; keys that it doesn't know are ignored.

        Args:
            content: what a JSON file holds.
            source: names the file in messages.

        Raises:
            UsageError: a key is missing, or has a value of another type.
        """
        try:
            return _from_json(cls, content, "")
        except ValueError as error:
            raise UsageError(f"{source} is damaged: {error}") from error

    @classmethod
    @cache
    def keys(cls) -> dict[str, tuple[str, Any]]:
        """Return each key in JSON with its field's name and type."""
        hints = get_type_hints(cls, include_extras=True)
        return {one.metadata.get("key", one.name): (one.name, hints[one.name]) for one in fields(cls)}  # type: ignore[arg-type]


@dataclass(frozen=True)
class DatasetMetrics(Record):
    """Data set of a run.

    Attributes:
        name: of the data set.
        gallery, queries, train: numbers of items.
        classes: distinct labels in the gallery.
        dim: width of the features, before any reduction.
        backbone: the image encoder; None where the data set has features.
        fingerprint: ``sha256:...`` of the items' content.
        queries_without_relevant: queries that no gallery item answers; they score 0.
        unanswered: which classes they are of, in words, with classes of the gallery that are spelt alike; None
            where there are no such queries.
    """

    name: str
    gallery: int
    queries: int
    train: int
    classes: int
    dim: int
    backbone: str | None
    fingerprint: str
    queries_without_relevant: int
    unanswered: str | None = None


@dataclass(frozen=True)
class ClassCounts(Record):
    """Number of classes, and of items in a class."""

    count: int
    smallest: int
    largest: int
    mean: float


@dataclass(frozen=True)
class LabelCounts(Record):
    """Labels of items that may have several.

    Attributes:
        none, several: items without a label, and with more than one.
        mean, most: labels of an item.
        pairs: the pairs of labels that most items have both of: two label numbers, and how many items.
    """

    none: int
    several: int
    mean: float
    most: int
    pairs: list[list[int]]


@dataclass(frozen=True)
class ProtocolMetrics(Record):
    """Evaluation protocol, with the audit of its query, gallery and training items.

    Attributes:
        name: of the protocol.
        split_hash: ``sha256:...`` of the three lists of item numbers.
        query_gallery_overlap, query_train_overlap: queries that are in the gallery, or in training.
        train_gallery_overlap: training items that are in the gallery.
        exact_duplicates, exact_duplicates_train: queries with the content of another item in the gallery, or in
            training.
        leak: whether queries are in the gallery or in training: the figures are then too good.
        leave_one_out: whether queries that are in the gallery were left out of their own rankings, which is no leak.
        classes: of ``queries``, ``gallery`` and ``train``.
        train_gallery_copies: training items outside the gallery with the content of one inside.
        near_copies: queries with a gallery item next to them by cosine of the features; None where none was looked for.
        labels: of ``queries``, ``gallery`` and ``train``, where items may have several; None elsewhere.
        definition: the figure that the literature reports of it, a key of ``definitions``; None if there is none.
    """

    name: str
    split_hash: str
    query_gallery_overlap: int
    query_train_overlap: int
    train_gallery_overlap: int
    exact_duplicates: int
    exact_duplicates_train: int
    leak: bool
    leave_one_out: bool = field(default=False, kw_only=True)
    classes: Annotated[Mapping[str, ClassCounts], ("queries", "gallery", "train")]
    definition: str | None = None
    train_gallery_copies: int = 0
    near_copies: int | None = None
    labels: Mapping[str, LabelCounts] | None = None


SHARED_LABEL = "a shared label"
"""The rule of relevance that goes without saying."""


@dataclass(frozen=True)
class RelevanceMetrics(Record):
    """What is relevant to a query.

    Attributes:
        name: of the option.
        rule: in words, with what ``auto`` came to; figures by different rules don't compare.
        graded: whether nDCG goes by grades.
        mean: relevant gallery items of a query.
        chance: the same as a share of the gallery: what mAP and P@k are in a random order, about.
        left_out: pairs that count neither way: junk, and queries in their own rankings.
    """

    name: str
    rule: str
    graded: bool
    mean: float
    chance: float
    left_out: int


@dataclass(frozen=True)
class MethodMetrics(Record):
    """Fitted hashing method.

    Attributes:
        name: of the option; ``none`` where features alone were searched.
        bits: the code's length; None without codes.
        supervision: what the method was trained with.
        params: its settings, every value in effect.
        pca: the settings of the reduction before it.
        parameters: how many numbers were learnt or drawn.
        chosen_epoch: whose weights are used, from 1; None without training.
    """

    name: str
    bits: int | None
    supervision: Literal["none", "labels"]
    params: Mapping[str, Any]
    pca: Mapping[str, Any]
    parameters: int
    chosen_epoch: int | None


@dataclass(frozen=True)
class Ties(Record):
    """Expectation of a metric over the orders of tied items, and its bounds."""

    expected: float | None
    optimistic: float | None
    pessimistic: float | None


@dataclass(frozen=True)
class ClassifierMetrics(Record):
    """What labels give without a code: figures of a classifier with the method's head, items and budget.

    Attributes:
        probabilities: of ranking by the probability that an item has the query's class.
        predicted_class: of the trivial code, the number of the predicted class; items at equal distance are ties.
        accuracy: share of the queries whose most probable class is theirs, or one of theirs.
        outputs: ``softmax``, or ``sigmoid`` where items may have several classes.
        classes: that it was trained to tell apart.
        parameters: how many numbers it has learnt.
        chosen_epoch: whose weights it has, from 1.
    """

    probabilities: Headline
    predicted_class: Headline
    accuracy: float
    outputs: Literal["softmax", "sigmoid"]
    classes: int
    parameters: int
    chosen_epoch: int | None


@dataclass(frozen=True)
class ReferenceMetrics(Record):
    """Rankings of the same items without a code.

    Attributes:
        cosine: exact cosine ranking of the features, which knows no labels; None where it was skipped.
        classifier: a classifier's, beside a method that was trained with labels; else None, as where it was skipped.
    """

    cosine: Headline | None
    classifier: ClassifierMetrics | None = field(default=None, kw_only=True)

    def figures(self, name: str) -> Figures | None:
        """Return the figures of ``cosine``, ``classifier`` (by probabilities) or ``predicted_class``, if known."""
        if name == "cosine" or self.classifier is None:
            return self.cosine if name == "cosine" else None
        return self.classifier.probabilities if name == "classifier" else self.classifier.predicted_class


@dataclass(frozen=True)
class LossMetrics(Record):
    """Where quality is lost: the same measures at each step from features to results.

    Attributes:
        features: by exact cosine; None where it was skipped.
        codes: by their exact ranking of the whole gallery; None where they were not ranked, or there are no binary
            codes.
        index: as it was searched, at the settings of ``search.point``.
    """

    features: Steps | None
    codes: Steps | None
    index: Steps

    def changes(self, measure: str) -> dict[str, float | None]:
        """Return what the ``code`` and the ``index`` each add to a measure (less than 0: lose); None if not known.

        Without codes the index is compared with the features.
        """
        steps = (self.features, self.codes, self.index)
        features, codes, index = (None if step is None else step[measure] for step in steps)
        before = features if self.codes is None else codes
        return {
            "code": None if codes is None or features is None else codes - features,
            "index": None if index is None or before is None else index - before,
        }


@dataclass(frozen=True)
class SearchMetrics(Record):
    """Candidates, recall and speed of searching the index.

    Attributes:
        index: name of the option.
        ranks: ``features`` where the features alone are searched, so that the method has no part in the figures.
        point: the query settings that the figures are of, the most thorough of the grid.
        candidates_mean: gallery items compared with a query, on average.
        candidates_fraction: the same as a share of the gallery.
        queries_without_candidates: queries that nothing was compared with.
        recall_at_10: share of the first ten of an exhaustive search that were found; None where it is not known.
        recall_at_10_cosine: the same of the first ten by exact cosine of the features.
        recall_at_10_codes: of the first ten by exact Hamming distance, the share found, counted by ``item`` and by
            ``distance``, and the same after rescoring (``rescored_``); None where the index misses none of them.
        recall_at_10_neighbors: the same of the first ten true neighbours, where these are what is relevant.
        qps: queries a second, in batches, encoding left out.
        latency_ms: milliseconds of one query alone: percentiles of searching, of encoding (``encode_``), of both
            (``with_encoding_``) and of the exact scan (``exact_``); ``_batch``: the mean of a query in a batch.
    """

    index: str
    ranks: Literal["method", "features"]
    point: Mapping[str, int]
    candidates_mean: float
    candidates_fraction: float
    queries_without_candidates: int
    recall_at_10: float | None = field(metadata={"key": "recall@10"})
    recall_at_10_cosine: float | None = field(metadata={"key": "recall@10/cosine"})
    recall_at_10_codes: CodeRecall | None = field(default=None, kw_only=True, metadata={"key": "recall@10/codes"})
    recall_at_10_neighbors: float | None = field(default=None, kw_only=True, metadata={"key": "recall@10/neighbors"})
    qps: float | None
    latency_ms: Annotated[Figures, ("p50", "p95", "p99")]


@dataclass(frozen=True)
class BucketMetrics(Record):
    """Statistics of bucket sizes: a bucket is a distinct code, its size the number of items that have it.

    Attributes:
        occupied: distinct codes.
        largest: the largest size.
        mean: items / occupied.
        seen: the size of the bucket that an item drawn at random is in, on average (sum of squares / items).
        singletons: buckets of one item.
        gini: inequality of sizes over the occupied buckets; 0 if all are equal.
    """

    occupied: int
    largest: int
    mean: float
    seen: float
    singletons: int
    gini: float


@dataclass(frozen=True)
class CodeMetrics(Record):
    """Statistics of the gallery's codes; None where one is not defined, and all of them without binary codes.

    Attributes:
        bit_balance: mean over bits of ``|2 p_j - 1|``, with ``p_j`` the share of ones: 0 if every bit is set for half
            of the items, 1 if every bit is constant.
        bit_correlation: mean absolute Pearson correlation over pairs of bits that both vary.
        constant_bits: bits that are equal in all codes.
        entropy_bits: sum over bits of ``-p log2 p - (1 - p) log2(1 - p)``: the code's length if every bit is balanced.
        code_entropy_bits: entropy of the distribution over distinct codes, in bits: at most log2(items), and at most
            ``entropy_bits``, which it equals if bits are independent.
        distinct_codes: how many different codes there are.
        quantisation_loss: mean squared difference between the projections, scaled to a root mean square of 1, and
            their signs; None where they were not kept.
    """

    bit_balance: float | None = None
    bit_correlation: float | None = None
    constant_bits: int | None = None
    entropy_bits: float | None = None
    code_entropy_bits: float | None = None
    distinct_codes: int | None = None
    buckets: BucketMetrics | None = None
    quantisation_loss: float | None = None


@dataclass(frozen=True)
class MemoryMetrics(Record):
    """Memory of the process at its peak, and of what searching reads, by one rule for every index.

    Attributes:
        peak_rss_bytes: the largest resident size of the process.
        code_bytes: of the items' codes: whole bytes of bits, or what else the method gives to be compared.
        index_bytes: of all else that the index holds.
        feature_bytes: of the features that searching reads besides, in memory or where they lie.
        fixed_bytes: of the index's, those that are the same for a gallery of any size: codebooks and centroids; None in
            runs of earlier versions.
        bytes_per_item: code, index and features together, for an item.
    """

    peak_rss_bytes: int | None
    code_bytes: int | None = field(default=None, kw_only=True)
    index_bytes: int
    feature_bytes: int | None = field(default=None, kw_only=True)
    fixed_bytes: int | None = field(default=None, kw_only=True)
    bytes_per_item: float


@dataclass(frozen=True)
class RunMetrics(Record):
    """Result of a run.

    Attributes:
        schema_version: :data:`SCHEMA_VERSION`.
        run_id: names what was computed: runs with the same one have the same figures.
        configuration_id: the same without the seed: runs with the same one are repeats of a configuration.
        source: ``sha256:...`` of the source code that computes figures.
        created: when the run finished, such as ``2025-01-01T00:00:00Z``.
        command: what repeats the run, as a list of arguments.
        seed: of everything drawn.
        relevance: what is relevant; None in runs of earlier versions, which went by shared labels.
        ranking: the distance that results are ordered by.
        metrics: means over all queries, expected over the order of ties.
        ties: what the order of items at equal distance could make of a metric, by its name.
        definitions: published definitions of the metrics; empty where they were not asked for.
        loss: the same measures of features, codes and index; None in runs of earlier versions.
        codes: figures on the gallery's codes.
        time_s: seconds of each part of the run.
        environment: versions, processor, threads and the folder that the run was started in; ``busy`` says why times
            may be too long, if they may.
    """

    schema_version: int
    run_id: str
    configuration_id: str
    source: str
    created: str
    command: list[str]
    seed: int
    dataset: DatasetMetrics
    protocol: ProtocolMetrics
    relevance: RelevanceMetrics | None = field(default=None, kw_only=True)
    method: MethodMetrics
    ranking: Literal["hamming", "cosine", "asymmetric"]
    metrics: Headline
    ties: Annotated[Mapping[str, Ties], ("mAP",)]
    definitions: Figures
    reference: ReferenceMetrics
    loss: LossMetrics | None = field(default=None, kw_only=True)
    search: SearchMetrics
    codes: CodeMetrics
    time_s: Annotated[Figures, ("load", "extract", "fit", "encode", "index", "search", "evaluate", "total")]
    memory: MemoryMetrics
    environment: Annotated[
        Mapping[str, str | int | None],
        ("lshbench", "python", "torch", "faiss", "cpu", "threads", "git", "directory"),
    ]

    @property
    def features_alone(self) -> bool:
        """Whether the index searches features, so that the method has no part in the figures."""
        return self.search.ranks == "features"

    @property
    def published(self) -> float | None:
        """The figure that the literature reports of the protocol; None without one, or where it was not computed."""
        return self.definitions.get(self.protocol.definition or "")

    @property
    def searched(self) -> str:
        """Name of what was searched: the method's, or the index's where it searches features alone."""
        return f"features by {self.search.index}" if self.features_alone else self.method.name


def _to_json(value: Any) -> Any:
    if isinstance(value, Record):
        return value.to_json()
    if isinstance(value, Mapping):
        return {key: _to_json(item) for key, item in value.items()}
    return value


def _from_json(hint: Any, value: Any, where: str) -> Any:
    """Return a value read from JSON as the type that a field declares, or raise ValueError naming the place."""
    required: tuple[str, ...] = ()
    if get_origin(hint) is Annotated:
        hint, required = get_args(hint)
    origin, parts = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if origin in (Union, UnionType):
        if value is None and NoneType in parts:
            return None
        *others, last = (part for part in parts if part is not NoneType)
        for part in others:
            try:
                return _from_json(part, value, where)
            except ValueError:
                continue
        return _from_json(last, value, where)
    if origin is Literal:
        if value in parts:
            return value
    elif origin is list:
        if isinstance(value, list):
            return [_from_json(parts[0], item, f"{where}[{i}]") for i, item in enumerate(value)]
    elif origin is Mapping or issubclass(hint, Record):
        if isinstance(value, dict):
            known = {key: (key, parts[1]) for key in value} if origin is Mapping else hint.keys()
            places = {key: f"{where}.{key}".lstrip(".") for key in (*required, *known)}
            # What later versions added has a default, for runs of earlier ones.
            defaulted = () if origin is Mapping else [one for one in fields(hint) if one.default is not MISSING]
            added = {one.metadata.get("key", one.name) for one in defaulted}
            for key, place in places.items():
                if key not in value and key not in added:
                    raise ValueError(f"{place} is missing")
            made = {name: _from_json(of, value[key], places[key]) for key, (name, of) in known.items() if key in value}
            return made if origin is Mapping else hint(**made)
    elif isinstance(value, (int, float) if hint is float else hint) and (hint is bool or not isinstance(value, bool)):
        return value
    raise ValueError(f"{where or 'the file'} is {value!r:.80}")
