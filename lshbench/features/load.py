"""Load the features of a split's rows: from the cache, by extraction, or as they are in the data set."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import xxhash

from lshbench.data.base import Split
from lshbench.data.fingerprint import bytes_digest
from lshbench.data.pixels import MOST_PIXELS
from lshbench.data.sets import SetSplit
from lshbench.errors import UsageError
from lshbench.features.backbone import Backbone, number_or_none
from lshbench.features.filling import Filling, Made
from lshbench.features.store import Entry, FeatureStore
from lshbench.runtime import scratch
from lshbench.runtime.progress import silent
from lshbench.types import Progress

if TYPE_CHECKING:
    from lshbench.data.images import ImageError

log = logging.getLogger(__name__)

VERSION = 2
SLOW_SECONDS = 0.5
"""Ready features that take longer to read are kept in the cache; for others a copy would only cost space."""
LARGE_BYTES = 4 << 30
"""Ready features of more bytes go into the cache part by part and are mapped from there: memory may not hold them."""
LARGE_SHARD = 8192
EARLY_SECONDS = 5.0
"""Time for looking at images before the network is loaded: a run that will stop had better stop at once."""
COUNT_SECONDS = 30.0
"""Time for counting unreadable images once there is one."""
NAMED = 10
"""Unreadable images that are named in the log."""


@dataclass(frozen=True)
class SplitFeatures:
    """Features of a split's rows.

    Attributes:
        x: float32 ``(n, d)``, or float16 where the store has that; may be a read-only memory map.
        digests: uint64 ``(n,)``, hashes of the items' content: of decoded pixels, or of feature vectors.
        seconds_extracting: time that the network and its data took; 0 if the features were there.
        from_cache: whether they came from the cache.
        unreadable: int64, positions (into the rows asked for) of images that could not be read, under
            ``backbone.unreadable=skip``: their rows of ``x`` are NaN, and have to be left out.
    """

    x: np.ndarray
    digests: np.ndarray
    seconds_extracting: float
    from_cache: bool
    unreadable: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))


def load_split_features(
    split: Split,
    rows: np.ndarray,
    backbone: Backbone | None,
    *,
    store: FeatureStore,
    device: str,
    threads: int,
    progress: Progress,
    fingerprint: str | None = None,
) -> SplitFeatures:
    """Return the features of a split's rows, from the cache, or read or extracted.

    Args:
        split: of features or images.
        rows: int64 ``(n,)``, ascending.
        backbone: encodes images; not used for a split of features.
        store: keeps them.
        device: as configured, such as ``auto`` or ``cuda:1``.
        threads: that extraction may use.
        progress: receives the progress of extraction and downloads.
        fingerprint: of the rows, where it has just been found.

    Raises:
        UsageError: an image that can't be read (named), features with NaN or infinite values, no disk space,
            weights that can't be had.
    """
    if isinstance(split, SetSplit):
        # Those of all images, whichever sets they are in: they are extracted once for all seeds.
        loaded = load_split_features(
            split.whole, np.arange(len(split.whole)), backbone, store=store, device=device, threads=threads,
            progress=progress,
        )  # fmt: skip
        return _of_sets(loaded, split, rows)
    complete = len(rows) == len(split) and np.array_equal(rows, np.arange(len(split)))
    base: dict[str, Any] = {"version": VERSION, "data": fingerprint or split.fingerprint(rows), "items": len(split)}
    if split.kind == "features":
        base["backbone"] = None
        base["vectors"] = "float32"
    elif backbone is None:
        raise UsageError(f"backbone=null: expected an image encoder, as {split.name} holds images")
    else:
        # A bound decides which images are left out; the usual one is no part of the key, as features were kept before.
        bound = {} if backbone.max_pixels == MOST_PIXELS else {"max_pixels": backbone.max_pixels}
        base["backbone"] = {**backbone.key(device, progress), **bound}
        base["stored"] = backbone.stored
    whole = {**base, "rows": "all"}
    key = whole if complete else {**base, "rows": bytes_digest(np.ascontiguousarray(rows, "<i8").tobytes())}
    if not complete and (entry := store.find(whole)) is not None:
        return _from_entry(entry, split, rows, backbone, None, picked=rows)
    if split.kind == "features":
        return _ready(split, rows, key, store, progress)
    assert backbone is not None
    return _extracted(split, rows, key, backbone, store, device, threads, progress)


def _of_sets(loaded: SplitFeatures, split: SetSplit, rows: np.ndarray) -> SplitFeatures:
    """Return the features of sets from those of all images; a set is unreadable if one of its images is."""
    x = split.pool(loaded.x, rows)
    members, offsets = split.members_of(rows)
    unreadable = np.logical_or.reduceat(np.isin(members, loaded.unreadable), offsets[:-1])
    seconds, from_cache = loaded.seconds_extracting, loaded.from_cache
    return SplitFeatures(x, row_digests(x), seconds, from_cache, np.flatnonzero(unreadable))


def row_digests(x: np.ndarray) -> np.ndarray:
    """Return a hash of each vector's bytes, uint64 ``(n,)``; equal vectors have equal hashes."""
    contiguous = np.ascontiguousarray(x)
    hashes = (xxhash.xxh3_64_intdigest(row.data) for row in contiguous)
    return np.fromiter(hashes, np.uint64, len(contiguous))


def _ready(
    split: Split, rows: np.ndarray, key: dict[str, Any], store: FeatureStore, progress: Progress
) -> SplitFeatures:
    if (entry := store.find(key)) is not None:
        return SplitFeatures(entry.x, entry.digests, 0.0, True)
    width = getattr(split, "width", None)
    if width is not None and (split.on_disk or 4 * len(rows) * width > LARGE_BYTES):
        return _copied(split, rows, key, width, store, progress)
    start = time.perf_counter()
    x = split.read_features(rows, progress)
    _check_unchanged(split, rows, key)
    seconds = time.perf_counter() - start
    digests = row_digests(x)
    if seconds > SLOW_SECONDS:

        def fill(entry: Filling) -> None:
            def make(shards: Iterator[range]) -> Iterator[Made]:
                for shard in shards:
                    entry.write(shard.start, x[shard.start : shard.stop])
                    yield Made(shard, digests[shard.start : shard.stop])

            entry.create(x.shape[1])
            entry.fill(make)

        try:
            entry, _ = store.get_or_fill(key, len(x), fill)
            return SplitFeatures(entry.x, entry.digests, 0.0, False)
        except UsageError as error:
            log.warning("the features are not kept for the next run: %s", error)
    return SplitFeatures(x, digests, 0.0, False)


def _copied(
    split: Split, rows: np.ndarray, key: dict[str, Any], width: int, store: FeatureStore, progress: Progress
) -> SplitFeatures:
    """Copy ready features into the store part by part, and return them as a memory map."""

    def fill(entry: Filling) -> None:
        entry.create(width)
        with progress(f"reading features of {split.name}", total=entry.rows_missing, unit="rows") as advance:

            def make(shards: Iterator[range]) -> Iterator[Made]:
                for shard in shards:
                    x = split.read_features(rows[shard.start : shard.stop], silent)
                    entry.write(shard.start, x)
                    advance(len(shard))
                    yield Made(shard, row_digests(x))

            entry.fill(make, advance)
        _keep_if_unchanged(entry, split, rows, key)

    entry, _ = store.get_or_fill(key, len(rows), fill, LARGE_SHARD)
    return SplitFeatures(entry.x, entry.digests, 0.0, False)


def _keep_if_unchanged(entry: Filling, split: Split, rows: np.ndarray, key: dict[str, Any]) -> None:
    """Take back what was written of a split if its files changed meanwhile, and say so."""
    try:
        _check_unchanged(split, rows, key)
    except UsageError:
        entry.forget()
        raise


def _check_unchanged(split: Split, rows: np.ndarray, key: dict[str, Any]) -> None:
    """Check that what was read is what the key of its features stands for.

    Raises:
        UsageError: the files changed meanwhile.
    """
    if split.fingerprint(rows) != key["data"]:
        raise UsageError(
            f"the files of {split.name!r} ({split.describe(int(rows[0]))} ...) changed while they were read; expected "
            "files that nothing writes to: run again when they are complete"
        )


def _extracted(
    split: Split,
    rows: np.ndarray,
    key: dict[str, Any],
    backbone: Backbone,
    store: FeatureStore,
    device: str,
    threads: int,
    progress: Progress,
) -> SplitFeatures:
    seconds = 0.0

    def fill(entry: Filling) -> None:
        # Imported here: a run with cached features needs no network.
        from lshbench.data.images import ImageError
        from lshbench.features.estimate import Speeds, announce
        from lshbench.features.extract import extract, find_unreadable

        nonlocal seconds
        started = time.perf_counter()
        workers, skip = number_or_none(backbone.workers) or threads, backbone.unreadable == "skip"
        missing = np.concatenate([rows[shard.start : shard.stop] for shard in entry.missing])
        if not (skip or split.remote):  # what a network brings is read once
            early = find_unreadable(split, missing, workers, EARLY_SECONDS, decoded=False)
            if early.first is not None:
                raise ImageError(f"{early.first}; {_all_of(early.count, early.looked_at, split)}")
        encoder = backbone.load(device, progress)
        entry.create(encoder.dim, backbone.stored)
        log.info(
            "extracting %d of %d images of %s in %d shards: %.1f MB in %s",
            entry.rows_missing, len(rows), split.name, len(entry.missing), entry.bytes_missing / 1e6, entry.folder,
        )  # fmt: skip
        speeds = Speeds(store.folder.parent, {**key["backbone"], "device": device, "threads": workers})
        announce(split, missing, encoder, speeds, workers)
        begun = time.perf_counter()
        try:
            described = f"extracting features of {split.name}"
            with progress(described, total=entry.rows_missing, unit="images") as advance:
                entry.fill(
                    lambda shards: extract(
                        split, rows, encoder, shards, entry.write, threads=workers, skip=skip, advance=advance
                    ),
                    advance,
                )
        except ImageError as error:
            raise _unreadable(error, split, rows, workers) from error
        _keep_if_unchanged(entry, split, rows, key)
        seconds = time.perf_counter() - started
        speeds.keep(entry.made, time.perf_counter() - begun)
        if entry.made:
            done, speed = (entry.made, encoder.dim, split.name, seconds), entry.made / seconds
            log.info("extracted %d x %d features of %s in %.1f s (%.0f images/s)", *done, speed)

    entry, made = store.get_or_fill(key, len(rows), fill, backbone.shard, backbone=backbone.name, split=split.name)
    if not made:
        log.info("features of %s are in the cache (%s)", split.name, entry.folder)
    return _from_entry(entry, split, rows, backbone, seconds if made else None, picked=None)


def _unreadable(first: ImageError, split: Split, rows: np.ndarray, threads: int) -> ImageError:
    """Return the error of an image that can't be read, with how many others there are."""
    from lshbench.features.extract import find_unreadable

    found = find_unreadable(split, rows, threads, COUNT_SECONDS, decoded=True)
    return type(first)(f"{first}; {_all_of(max(found.count, 1), found.looked_at, split)}")


def _all_of(count: int, total: int, split: Split) -> str:
    return (
        f"{count:,} of {total:,} images of {split.name} that were looked at can't be read; backbone.unreadable=skip "
        "leaves them out and names them"
    )


def _from_entry(
    entry: Entry,
    split: Split,
    rows: np.ndarray,
    backbone: Backbone | None,
    seconds: float | None,
    picked: np.ndarray | None,
) -> SplitFeatures:
    """Return an entry's features, all or the picked rows; log unreadable images among them, or raise.

    ``seconds`` is what extracting them took, or None if they were there.
    """
    faults = dict(entry.unreadable)
    if picked is not None:
        places = {int(row): place for place, row in enumerate(picked)} if faults else {}
        faults = {places[row]: fault for row, fault in faults.items() if row in places}
    if faults:
        from lshbench.data.images import ImageError

        if backbone is None or backbone.unreadable == "stop":
            raise ImageError(f"{next(iter(faults.values()))}; {_all_of(len(faults), len(rows), split)}")
        named = "; ".join(list(faults.values())[:NAMED])
        log.warning("%d of %d images of %s are left out: %s", len(faults), len(rows), split.name, named)
    x, digests = entry.x, entry.digests
    if picked is not None:
        x = scratch.copy_rows(x, picked, scratch.empty((len(picked), x.shape[1]), x.dtype))
        digests = digests[picked]
    return SplitFeatures(x, digests, seconds or 0.0, seconds is None, np.array(sorted(faults), np.int64))
