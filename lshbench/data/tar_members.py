"""Walk the headers of a tar file, on a disk or on the Hub: where its members lie, without reading what they hold."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Self

from lshbench.data.names import printable
from lshbench.data.stored_file import PART, StoredFile
from lshbench.errors import UsageError

LOCAL_BLOCKS = (1 << 14, 1 << 14)
REMOTE_BLOCKS = (1 << 16, PART)
"""Bytes that are read at once, least and most: asking around a small member costs more than its bytes."""
LONGEST_READ = 1 << 20
"""Bytes of one header, or of one label, at most."""
TAIL = 1 << 16
"""Bytes behind the last member that are looked at: archives end with zeros."""
COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


@dataclass(frozen=True)
class Member:
    """A member of a tar file.

    Attributes:
        name: as its header has it; never a path to anything.
        start, size: the place of its content in the file, and its bytes.
        plain: whether it is a file with content in one piece, no link or device.
    """

    name: str
    start: int
    size: int
    plain: bool


class BlockReader:
    """A file of which blocks are read; the length of blocks follows the distance of what is asked for.

    Where the next header lies a little further, blocks grow until they follow each other; where it lies far away,
    only blocks around headers are read.

    Args:
        opened: the file.
        size: its bytes.
        least, most: bytes of a block.
    """

    def __init__(self, opened: BinaryIO, size: int, least: int, most: int) -> None:
        self._opened, self._size, self._least, self._most = opened, size, least, most
        self._place, self._start, self._block, self._length = 0, 0, b"", least

    def tell(self) -> int:
        return self._place

    def seek(self, place: int) -> int:
        self._place = place
        return place

    def read(self, count: int) -> bytes:
        """Return the next bytes, fewer at the end of the file.

        Raises:
            tarfile.ReadError: more than :data:`LONGEST_READ`, which nothing needs that is read here.
        """
        if count > LONGEST_READ:
            raise tarfile.ReadError(f"a header of {count:,} bytes")
        stop = min(self._place + count, self._size)
        if not 0 <= self._place < stop:
            return b""
        if self._place < self._start or stop > self._start + len(self._block):
            self._fetch(stop - self._place)
        part = self._block[self._place - self._start : stop - self._start]
        self._place += len(part)
        return part

    def _fetch(self, count: int) -> None:
        skipped = self._place - (self._start + len(self._block))
        near = self._place >= self._start and skipped < self._length
        self._length = min(max(2 * self._length if near else self._length // 2, self._least), self._most)
        self._opened.seek(self._place)
        self._block = self._opened.read(min(max(count, self._length), self._size - self._place))
        self._start = self._place


class OpenTar:
    """A tar file whose headers are walked; to be used in a ``with`` block.

    Args:
        file: the file.
        where: names its split in messages.
    """

    def __init__(self, file: StoredFile, where: str) -> None:
        self.file = file
        self.named = f"{where}: {printable(file.name)}"

    def __enter__(self) -> Self:
        self._opened = self.file.open()
        blocks = REMOTE_BLOCKS if self.file.remote else LOCAL_BLOCKS
        self._reader = BlockReader(self._opened, self.file.size, *blocks)
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def members(self) -> Iterator[Member]:
        """Yield the members but folders, in their order.

        Raises:
            UsageError: the file is no tar file, is compressed, damaged, cut off, or goes on after its end.
        """
        reader = self._reader
        first = reader.read(8)
        if kind := next((kind for magic, kind in COMPRESSED.items() if first.startswith(magic)), None):
            raise UsageError(f"{self.named} is compressed ({kind}), and can't be read in parts; expected a plain .tar")
        reader.seek(0)
        try:
            # Never extracted from, so a name or a link leads nowhere.
            with tarfile.TarFile(fileobj=reader, encoding="utf-8") as tar:  # type: ignore[arg-type]
                while (found := tar.next()) is not None:
                    tar.members.clear()  # type: ignore[attr-defined]  # which would keep all of a million
                    stop = found.offset_data + found.size
                    if found.size < 0:
                        raise tarfile.ReadError(f"{printable(found.name)} has a size below 0")
                    plain = found.isreg() and not found.issparse()
                    if plain and stop > self.file.size:
                        raise UsageError(
                            f"{self.named} is cut off: {printable(found.name)} would end at byte {stop:,} of "
                            f"{self.file.size:,}; expected the whole file"
                        )
                    if not found.isdir():
                        yield Member(found.name, found.offset_data, found.size, plain)
                    if tar.offset <= found.offset:
                        raise tarfile.ReadError(f"{printable(found.name)} ends before it begins")
                end = tar.offset
        except (tarfile.TarError, ValueError, ArithmeticError, LookupError, RecursionError, OSError) as error:
            raise UsageError(f"{self.named} is damaged, or no tar file: {error}") from error
        reader.seek(end)
        tail = reader.read(TAIL)
        if len(tail) < tarfile.BLOCKSIZE:
            raise UsageError(f"{self.named} is cut off: it has no end after byte {end:,}; expected the whole file")
        if tail.strip(b"\0"):
            raise UsageError(
                f"{self.named}: what follows byte {end:,} is neither a member nor an archive's end; expected one whole "
                "archive (joined ones have to be apart)"
            )

    def content(self, member: Member) -> bytes:
        """Return what a small member holds.

        Raises:
            UsageError: it is not small.
        """
        if member.size > LONGEST_READ:
            raise UsageError(
                f"{self.named}: {printable(member.name)} has {member.size:,} bytes; expected a label of at most "
                f"{LONGEST_READ:,}"
            )
        self._reader.seek(member.start)
        return self._reader.read(member.size)
