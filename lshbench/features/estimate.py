"""What an extraction will take, said before it begins: images, bytes, and time at this machine's speed."""

from __future__ import annotations

import json
import logging
import os
import platform
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from lshbench.data.base import Split
from lshbench.data.fingerprint import combine
from lshbench.data.images import ImageError
from lshbench.features.encoder import Encoder
from lshbench.features.extract import encode_images
from lshbench.runtime.progress import amount, duration, speed

log = logging.getLogger(__name__)

LONG = 5000
"""Images from which on a speed that is not known is measured first."""
TYPICAL = 200
"""Images that an extraction makes at least for its speed to be kept."""


class Speeds:
    """Images a second that extractions on this machine did, kept in a file of the cache for each kind of them.

    Args:
        cache: the cache folder.
        setting: what the speed depends on, as JSON values.
    """

    def __init__(self, cache: Path, setting: dict[str, Any]) -> None:
        name = combine("speed", platform.node(), setting).removeprefix("sha256:")[:32]
        self._path = cache / "speeds" / f"{name}.json"

    def known(self) -> float | None:
        """Return the speed of an earlier extraction, or None."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            found = float(json.loads(self._path.read_bytes())["images_per_second"])
            return found if 0 < found < float("inf") else None
        return None

    def keep(self, images: int, seconds: float) -> None:
        """Keep the speed of an extraction, unless it was a short one."""
        if images < TYPICAL or seconds <= 0:
            return
        temporary = self._path.with_name(f".{self._path.name}.{os.urandom(4).hex()}")
        with suppress(OSError):  # an estimate is worth no failure
            self._path.parent.mkdir(exist_ok=True)
            temporary.write_text(json.dumps({"images_per_second": images / seconds}))
            temporary.replace(self._path)


def announce(split: Split, rows: np.ndarray, encoder: Encoder, speeds: Speeds, threads: int) -> None:
    """Log what extracting some rows takes, and what the whole data set would where this one has a part of it.

    Args:
        split: of images.
        rows: int64 ``(n,)``, those to be extracted.
        encoder: a loaded backbone.
        speeds: of earlier extractions; where none is known and there is much to do, the first images are tried.
        threads: that may be busy at once.
    """
    rate, how = speeds.known(), "as an earlier extraction here did"
    part_of = split.full_size if split.full_size is not None and split.full_size > len(split) else None
    if rate is None and (len(rows) >= LONG or part_of):
        rate, how = _tried(split, rows[: threads * encoder.batch_size], encoder, threads), "as the first images take"
    size = split.bytes_of(rows)
    log.info("%s: %s images to extract: %s", split.name, f"{len(rows):,}", _cost(len(rows), size, rate, how))
    if part_of is not None:
        whole = None if size is None else round(size / len(rows) * part_of)
        there, cost = f"{len(split):,} of {part_of:,}", _cost(part_of, whole, rate, how)
        log.info("%s has %s images here; all of them would take: %s", split.name, there, cost)


def _cost(images: int, size: int | None, rate: float | None, how: str) -> str:
    read = "" if size is None else f"{amount(size, None, 'bytes')} to read, "
    needed = "a time that is not known yet" if rate is None else f"about {duration(images / rate)}"
    return read + needed + ("" if rate is None else f" at {speed(rate, 'images')}, {how}")


def _tried(split: Split, rows: np.ndarray, encoder: Encoder, threads: int) -> float | None:
    """Return the speed of a few images, or None where one can't be read."""
    names = (split.describe(int(row)) for row in rows)
    images = list(zip(split.image_bytes(rows), names, strict=True))
    began = time.perf_counter()
    try:
        encode_images(images, encoder, threads)
    except ImageError:  # which the extraction will meet again, and name
        return None
    return len(rows) / (time.perf_counter() - began)
