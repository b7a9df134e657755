"""The manifest of a run: the size and checksum of each of its files, ``metrics.json`` among them.

It is written before ``metrics.json``, whose existence means that the run is finished: what ``metrics.json`` will hold
is known by then.  Checksums (XXH3, 128 bits) show damage; whoever means to deceive can write a manifest that fits.
What they can't write is the seal, which tells the runs that were made here from those that came from elsewhere.
"""

from __future__ import annotations

import hmac
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, Self

import xxhash

from lshbench.files import check_regular, read_small
from lshbench.run_folder.contents import CONFIG, MANIFEST, METRICS, MODEL_DESCRIPTION
from lshbench.run_folder.disk import atomic_file

BLOCK = 8 << 20

SEALED = (CONFIG, MODEL_DESCRIPTION, METRICS)
"""Files that name what lies outside the folder: data, weights, the cache, classes, and where the run was started."""


@dataclass(frozen=True)
class Entry:
    """Size in bytes and checksum of a file."""

    size: int
    checksum: str


@dataclass(frozen=True)
class Manifest:
    """What the files of a run were when it finished.

    Attributes:
        entries: of each file, by its name in the folder, such as ``codes/gallery.npy``.
        seal: keyed hash of :data:`SEALED`; None where the run was made without a key.
    """

    entries: Mapping[str, Entry]
    seal: str | None = None

    @classmethod
    def of(cls, folder: Path, names: list[str], metrics: bytes, key: bytes | None) -> Self:
        """Return the manifest of a run's files on the disk, and of ``metrics.json``, which is yet to be written.

        Args:
            folder: of the run.
            names: of the files.
            metrics: what ``metrics.json`` will hold.
            key: of this user's runs (:func:`lshbench.runtime.own.own_key`); None makes no seal.
        """
        entries = {name: entry_of(folder / name) for name in names}
        entries[METRICS] = Entry(len(metrics), xxhash.xxh3_128_hexdigest(metrics))
        contents = [metrics if name == METRICS else _content(folder / name) for name in SEALED]
        return cls(entries, None if key is None else _seal(key, contents))

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """Return a folder's manifest; None if it has none, as runs of earlier versions.

        Raises:
            ValueError: it is damaged.
        """
        path = folder / MANIFEST
        if not path.exists() and not path.is_symlink():
            return None
        check_regular(path, folder)
        content = json.loads(read_small(path))
        try:
            files = {str(name): dict(entry) for name, entry in content["files"].items()}
            if _checksum_of(files) != content["checksum"]:
                raise ValueError("its checksum is another")
            entries = {name: Entry(int(one["bytes"]), str(one["xxh3_128"])) for name, one in files.items()}
            if METRICS not in entries or not all(map(_is_inside, entries)):
                raise ValueError("it names files that are no part of a run")
            seal = content.get("seal")
            return cls(entries, None if seal is None else str(seal))
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"no manifest ({error!r})") from error

    def write(self, folder: Path) -> None:
        """Write the manifest, in one step."""
        files = {name: {"bytes": one.size, "xxh3_128": one.checksum} for name, one in self.entries.items()}
        content = {"files": files, "checksum": _checksum_of(files), "seal": self.seal}
        with atomic_file(folder / MANIFEST) as file:
            file.write((json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())

    def check_size(self, folder: Path, name: str) -> None:
        """Check that a file is there, with its size.

        Raises:
            FileNotFoundError: it is not there.
            ValueError: it is of another size, or no file.
        """
        size, expected = check_regular(folder / name, folder), self.entries[name].size
        if size != expected:
            raise ValueError(f"it has {size:,} bytes, and had {expected:,} when the run finished")

    def check(self, folder: Path, name: str, advance: Callable[[int], None] | None = None) -> None:
        """Check a file's size and content.

        Args:
            folder: of the run.
            name: of a file with an entry.
            advance: receives the bytes read.

        Raises:
            OSError, ValueError: it is not what it was.
        """
        self.check_size(folder, name)
        if entry_of(folder / name, advance) != self.entries[name]:
            raise ValueError("its content is not what it was when the run finished (checksum)")

    def is_sealed_by(self, folder: Path, key: bytes | None) -> bool:
        """Return whether the run was made by whoever holds a key, and names the same things outside its folder."""
        if key is None or self.seal is None:
            return False
        return hmac.compare_digest(
            self.seal.encode(), _seal(key, [_content(folder / name) for name in SEALED]).encode()
        )


def entry_of(path: Path, advance: Callable[[int], None] | None = None) -> Entry:
    """Return a file's entry; ``advance`` receives the bytes read."""
    checksum, size = xxhash.xxh3_128(), 0
    file: IO[Any]
    with path.open("rb", buffering=0) as file:
        # Most files are small: clearing a whole block takes longer than reading them.
        buffer = bytearray(min(BLOCK, os.fstat(file.fileno()).st_size + 1))
        while count := file.readinto(buffer):
            checksum.update(memoryview(buffer)[:count])
            size += count
            if advance is not None:
                advance(count)
    return Entry(size, checksum.hexdigest())


def _content(path: Path) -> bytes:
    return read_small(path) if path.exists() else b""


def _seal(key: bytes, contents: list[bytes]) -> str:
    sealed = hmac.new(key, digestmod="sha256")
    for content in contents:
        sealed.update(len(content).to_bytes(8, "little") + content)
    return sealed.hexdigest()


def _checksum_of(files: Mapping[str, Mapping[str, Any]]) -> str:
    return xxhash.xxh3_128_hexdigest(json.dumps(files, sort_keys=True).encode())


def _is_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and "\0" not in name and str(path) == name
