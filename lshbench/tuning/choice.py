"""A choice among codes and indexes: each candidate is fitted, searched and timed on a part of the training set.

No query of the data set is looked at.  What was measured is kept in a file, a candidate a line, under the identity of
its configuration and the machine's: the same command goes on where another process was stopped, and with another budget
measures only what it has not before.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import NormalDist
from typing import Any, Literal, TypeVar

import numpy as np

from lshbench.config import check_root, identity
from lshbench.errors import UsageError
from lshbench.evaluation.evaluate import evaluate
from lshbench.evaluation.timing import time_encoding, time_search
from lshbench.index.base import Index
from lshbench.inputs import Inputs
from lshbench.run_folder import computing
from lshbench.runtime.cache import cache_dir
from lshbench.runtime.environment import processor
from lshbench.runtime.shared_work import sharing
from lshbench.runtime.threads import available_cores, set_threads
from lshbench.system import System
from lshbench.tuning.candidates import Budget, Choosing
from lshbench.tuning.files import mend
from lshbench.tuning.least_bytes import least_bytes
from lshbench.tuning.validation import Judge, rule_of_trials
from lshbench.types import RESULTS, Encoded, Progress

log = logging.getLogger(__name__)

FILE = "measured.jsonl"

PER_QUERY = {"mAP": "AP", "MRR": "RR"}
"""Measures whose values of single queries have another name."""

LEVEL = 0.95
"""Probability that the figures of all candidates, with as many other queries as the run has, lie in their intervals."""

Configure = Callable[[dict[str, Any]], dict[str, Any]]
"""From a candidate's values by key to a run's resolved configuration."""

Made = TypeVar("Made")

State = Literal["measured", "too large", "refused", "failed"]


@dataclass(frozen=True)
class Point:
    """What a candidate finds and costs at one of its query settings.

    Attributes:
        settings: of the index, by key without ``index.``.
        values: the target of each validation query.
        bytes_per_item: code, index and features read, in a gallery of the run's size.
        ms: of a query alone with encoding, median, in the gallery that candidates are judged on.
        qps: queries a second in a batch, with encoding.
        busy: why times may be too long, or None.
    """

    settings: dict[str, int]
    values: list[float]
    bytes_per_item: float
    ms: float
    qps: float
    busy: str | None

    @property
    def quality(self) -> float:
        """The mean over validation queries."""
        return float(np.mean(self.values))


@dataclass(frozen=True)
class Tried:
    """What became of a candidate.

    Attributes:
        values: by key of a run.
        key: tells it from candidates with other values in effect, data, code, threads, device or processor.
        state: ``measured``; ``too large`` where its bytes are known to exceed the budget before anything is fitted;
            ``refused`` for values that can't be used; ``failed`` by any other error.
        points: in the order of the index's query settings.
        reason: why there are none.
        seconds: that it took.
    """

    values: dict[str, Any]
    state: State
    key: str = ""
    points: list[Point] = field(default_factory=list)
    reason: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Ranked:
    """A candidate at one of its query settings, among those that fit the budget.

    Attributes:
        values: by key of a run, the settings among them.
        point: what was measured.
        low, high: where the figure of the run's own queries is to be expected.
        on_front: whether no other is at least as good, as small and as fast, and better in one of these.
    """

    values: dict[str, Any]
    point: Point
    low: float
    high: float
    on_front: bool


@dataclass(frozen=True)
class Choice:
    """What a choice came to.

    Attributes:
        folder: where it is kept.
        ranked: that fit the budget, the best first.
        over: values and points that don't fit, in the order they were tried.
        tried: all candidates.
        judge: what they were judged on; times were taken in its gallery.
        items: of the run's gallery.
    """

    folder: Path
    ranked: list[Ranked]
    over: list[tuple[dict[str, Any], Point]]
    tried: list[Tried]
    judge: Judge
    items: int


def choose(configure: Configure, settings: Choosing, budget: Budget, target: str, progress: Progress) -> Choice:
    """Measure all candidates, but for those that were measured before, and rank what fits the budget.

    Args:
        configure: composes a candidate's configuration.
        settings: candidates, and how many validation queries.
        budget: what they may cost.
        target: the measure they are ranked by.
        progress: receives the progress of long work.

    Raises:
        UsageError: wrong use, before anything is measured wherever it can be seen that early.
    """
    config = configure({})
    check_root(config)
    inputs = Inputs.from_config(config, config["threads"] or available_cores(), cache_dir(config["cache"]))
    set_threads(inputs.threads)
    data = inputs.open(progress)
    judge = Judge.of(
        data,
        inputs,
        part=settings.validation,
        most=settings.queries,
        # One rule for all candidates, or their figures could not be compared: never the one for methods without labels.
        rule=rule_of_trials(inputs.relevance, settings.relevant, "labels"),
        measure=target,
        progress=progress,
        group="choose",
    )
    fingerprint, encoder = data.dataset.fingerprint(data.selection.train), inputs.encoder(data, progress)
    name = _name(identity(config, {}, fingerprint, encoder).run, settings, target)
    output = Path(config["output"])
    folder = output / "choosing" / f"{data.dataset.name}-{name}"
    candidates = settings.candidates(budget)
    # Of two processes that come to the same choice, the second waits and finds what the first measured.
    with computing(output, f"choosing-{name}"), sharing(inputs.cache / "shared_work", inputs.threads):
        kept = _read(folder)
        bench = Bench(judge, target, budget, progress, inputs.threads, len(data.selection.gallery))
        tried: list[Tried] = []
        with progress("choosing", total=len(candidates), unit="candidates") as advance:
            for values in candidates:
                wanted: dict[str, Any] | None = values
                while wanted is not None and all(wanted != other.values for other in tried):
                    one = bench.prepared(configure, wanted, fingerprint, encoder)
                    if isinstance(one, Candidate):
                        one = measured_once(bench, one, kept, folder)
                    tried.append(one)
                    log.info("%s: %s", shown(wanted), _outcome(one, target))
                    wanted = shorter(one)
                advance(1)
    rows = [
        (one.values | {f"index.{key}": value for key, value in point.settings.items()}, point)
        for one in tried
        for point in one.points
    ]
    fitting = [row for row in rows if _fits(row[1], budget)]
    over = [row for row in rows if not _fits(row[1], budget)]
    return Choice(folder, ranked(fitting, len(data.selection.queries)), over, tried, judge, bench.items)


def shorter(one: Tried) -> dict[str, Any] | None:
    """Return a candidate with half the code, in whole bytes, where it was refused as too long; else None.

    A large budget has codes that are longer than features have components: what is shorter fits it, too.
    """
    for key in ("bits", "index.nbits"):
        bits = one.values.get(key)
        too_long = tuple(f"{key}={bits}: expected {right}" for right in ("fewer", "at most"))
        if isinstance(bits, int) and bits >= 16 and one.state == "refused" and one.reason.startswith(too_long):
            return one.values | {key: bits // 16 * 8}
    return None


def _fits(point: Point, budget: Budget) -> bool:
    return point.bytes_per_item <= budget.bytes and (budget.ms is None or point.ms <= budget.ms)


def ranked(rows: Sequence[tuple[dict[str, Any], Point]], queries: int) -> list[Ranked]:
    """Return candidates with their intervals, the best first; of equally good ones the smaller, then the faster.

    An interval is where the mean over other queries is to be expected: it allows for the chance of these queries and
    of those, and, by Bonferroni's correction, for that of having been the best of so many.

    Args:
        rows: values by key and what was measured.
        queries: how many other queries there are.
    """
    found = []
    z = NormalDist().inv_cdf(1 - (1 - LEVEL) / (2 * max(1, len(rows))))
    for values, point in rows:
        # With a query that found nothing and one that found all: a few queries that scored alike, such as three at 1.0,
        # do not say that others can't differ.
        spread = float(np.std([*point.values, 0.0, 1.0], ddof=1)) if len(point.values) > 1 else math.inf
        half = z * spread * math.sqrt(1 / len(point.values) + 1 / max(1, queries))
        mean = point.quality
        found.append(Ranked(values, point, max(0.0, mean - half), min(1.0, mean + half), False))
    found.sort(key=lambda one: (-one.point.quality, one.point.bytes_per_item, one.point.ms))
    costs = [(-one.point.quality, one.point.bytes_per_item, one.point.ms) for one in found]
    return [
        replace(one, on_front=not any(_beats(other, own) for other in costs))
        for one, own in zip(found, costs, strict=True)
    ]


def _beats(other: tuple[float, ...], own: tuple[float, ...]) -> bool:
    return other != own and all(theirs <= mine for theirs, mine in zip(other, own, strict=True))


@dataclass(frozen=True)
class Candidate:
    """A candidate that can be measured: its values by key, its configuration, its parts, and what it is known by."""

    values: dict[str, Any]
    config: dict[str, Any]
    system: System
    key: str


class Bench:
    """Fits candidates and measures them; what was fitted last is kept for the next with the same method.

    Args:
        judge: what they are measured on.
        target: the measure that they are ranked by.
        budget: what they may cost.
        progress: receives the progress of long work.
        threads: that encode and search.
        items: of the run's gallery, for which bytes of an item are told.
    """

    def __init__(self, judge: Judge, target: str, budget: Budget, progress: Progress, threads: int, items: int) -> None:
        self.judge, self.target, self.budget, self.progress = judge, target, budget, progress
        self.threads, self.items = threads, items
        self._fitted: tuple[str, Callable[[Index], System]] | None = None

    def prepared(
        self, configure: Configure, values: dict[str, Any], fingerprint: str, encoder: dict[str, Any] | None
    ) -> Candidate | Tried:
        """Return a candidate, or why it is none: no error of it ends the choice.

        Args:
            configure: composes its configuration.
            values: by key of a run.
            fingerprint: of the data.
            encoder: what features of images depend on besides them.
        """

        def make() -> Candidate | Tried:
            config = configure(values)
            system = System.from_config(config)
            set_threads(self.threads)  # of the libraries that its parts have loaded, too
            system.check_labels(self.judge.train.y)
            least = least_bytes(system, self.judge.gallery.x.shape[1])
            if least > self.budget.bytes:
                return Tried(values, "too large", reason=f"at least {least:,} bytes an item")
            run = identity(config, system.method.in_effect(), fingerprint, encoder).run
            key = hashlib.sha256(
                f"{run} {config['device']} {self.threads} {self.items} {processor()}".encode()
            ).hexdigest()[:16]
            return Candidate(values, config, system, key)

        return _without_faults(values, make)

    def measured(self, candidate: Candidate) -> Tried:
        """Return what became of a candidate; no error of it ends the choice."""
        begun = time.monotonic()

        def measure() -> Tried:
            points = self._points(self._fit(candidate.config, candidate.system))
            return Tried(candidate.values, "measured", candidate.key, points)

        return replace(_without_faults(candidate.values, measure), seconds=time.monotonic() - begun)

    def _fit(self, config: dict[str, Any], system: System) -> System:
        key = json.dumps([config[name] for name in ("method", "pca", "seed")], default=str)
        if self._fitted is not None and self._fitted[0] == key:
            return self._fitted[1](system.index)
        system.fit(self.judge.train, self.progress)
        # Without its index, which is built later and may be large.
        self._fitted = key, partial(System, system.pca, system.method)
        return system

    def _points(self, system: System) -> list[Point]:
        gallery, queries = self.judge.gallery, self.judge.queries

        def encode(start: int, stop: int) -> Encoded:
            return system.encode(queries.x[start:stop], "query")

        index = system.build(system.encode(gallery.x, "gallery")).index
        encoded = encode(0, len(queries))
        seconds = time_encoding(encode, len(queries))
        found = []
        for point in index.points():
            index.set_point(point)
            timed = time_search(index, encoded, encode, seconds, min(RESULTS, len(gallery)))
            blocks = index.rank(encoded, self.judge.relevance, positions=0)
            values = evaluate(blocks, len(queries), self.progress, "ranking").measures
            found.append(
                Point(
                    dict(point),
                    values[PER_QUERY.get(self.target, self.target)].tolist(),
                    index.bytes_per_item(self.items),
                    timed.latency_ms["with_encoding_p50"],
                    timed.qps_with_encoding,
                    timed.busy,
                )
            )
        return found


def measured_once(bench: Bench, candidate: Candidate, kept: dict[str, Tried], folder: Path) -> Tried:
    """Return what a candidate came to before, under its own values, or measure and keep it.

    Args:
        bench: measures.
        candidate: to be measured.
        kept: what was measured before, by key; what is measured is added.
        folder: where it is kept.
    """
    if (before := kept.get(candidate.key)) is not None:
        return replace(before, values=candidate.values)
    found = bench.measured(candidate)
    if found.state == "measured":
        _append(folder, found)
        kept[candidate.key] = found
    return found


def _without_faults(values: dict[str, Any], work: Callable[[], Made]) -> Made | Tried:
    """Return what work comes to, or the candidate as refused or failed."""
    try:
        return work()
    except UsageError as error:
        return Tried(values, "refused", reason=str(error))
    except Exception as error:
        log.debug("a candidate failed", exc_info=error)
        return Tried(values, "failed", reason=f"{type(error).__name__}: {error}")


def shown(values: dict[str, Any]) -> str:
    """Return a candidate in words: its keys but for their first words."""
    parts = []
    for key, value in values.items():
        name = key.removeprefix("index.")
        parts.append(str(value) if key in ("method", "index", "ranking") else f"{name}={json.dumps(value)}")
    return " ".join(part for part in parts if part != "none")


def _outcome(one: Tried, target: str) -> str:
    if not one.points:
        return f"{one.state}: {one.reason}"
    best = max(one.points, key=lambda point: point.quality)
    return f"{target} {best.quality:.4f}, {best.bytes_per_item:,.4g} bytes an item, {best.ms:.3g} ms"


def _name(run: str, settings: Choosing, target: str) -> str:
    """Return what tells choices apart: data, encoder, seed, validation queries and their rule, target, and the code."""
    code = [path.read_text(encoding="utf-8") for path in sorted(Path(__file__).parent.glob("*.py"))]
    kept = [run, settings.relevant, settings.validation, settings.queries, target, code]
    return hashlib.sha256(json.dumps(kept).encode()).hexdigest()[:8]


def _read(folder: Path) -> dict[str, Tried]:
    """Return what was measured before, by the candidate's key."""
    file = folder / FILE
    mend(file)
    if not file.is_file():
        return {}
    found = {}
    try:
        for line in file.read_text(encoding="utf-8").splitlines():
            kept = json.loads(line)
            one = Tried(**(kept | {"points": [Point(**point) for point in kept["points"]]}))
            found[one.key] = one
    except (ValueError, TypeError, KeyError) as error:
        raise UsageError(f"{file} is damaged ({error}): delete it to begin again") from error
    return found


def _append(folder: Path, one: Tried) -> None:
    """Add a candidate to the file, so that it is there whatever happens to this process or machine."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / FILE).open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(one)) + "\n")
        file.flush()
        os.fsync(file.fileno())
