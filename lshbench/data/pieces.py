"""Items that lie together in a file and are read together, such as a row group of a Parquet file: pieces."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import Future

import numpy as np

READERS = 16
"""Requests under way at once while labels are read: each is small, and takes as long as the way to the Hub."""
AHEAD = 8
AHEAD_BYTES = 64 << 20
"""Pieces, and bytes of them, that are read while those before are in use."""
KEPT_BYTES = 128 << 20
"""Bytes of pieces that stay for a later reading."""


class Pieces(ABC):
    """Interface of a split's items by pieces.

    Attributes:
        starts: int64 ``(pieces + 1,)``, the row at which each piece begins, and the number of rows.
        sizes: int64 ``(pieces,)``, the bytes that reading each takes.
        remote: whether reading takes a network.
    """

    starts: np.ndarray
    sizes: np.ndarray
    remote: bool

    @abstractmethod
    def read(self, piece: int) -> Sequence[bytes]:
        """Return the encoded images of a piece, in the order of its rows; may be called from several threads."""


class ReadAhead:
    """Reads single rows of pieces, and the pieces that come next in threads of their own; the latest stay."""

    def __init__(self, pieces: Pieces) -> None:
        self._pieces = pieces
        self._lock = threading.Lock()
        self._begun: dict[int, Future[Sequence[bytes]]] = {}

    def rows(self, rows: np.ndarray) -> Iterator[bytes]:
        """Yield the encoded image of each row, in the order given."""
        numbers = np.searchsorted(self._pieces.starts, rows, side="right") - 1
        begins = np.flatnonzero(np.diff(numbers, prepend=-1))
        order = numbers[begins]
        for place, (begin, stop) in enumerate(zip(begins, [*begins, len(rows)][1:], strict=True)):
            piece = int(order[place])
            images = self._read(piece, order[place + 1 : place + 1 + AHEAD])
            first = self._pieces.starts[piece]
            yield from (images[row - first] for row in rows[begin:stop])

    def _read(self, piece: int, following: np.ndarray) -> Sequence[bytes]:
        """Return a piece's images, and begin to read those that follow."""
        room = np.cumsum(self._pieces.sizes[following]) <= AHEAD_BYTES
        wanted = [piece, *(int(number) for number, fits in zip(following, room, strict=True) if fits)]
        with self._lock:
            for number in reversed(wanted):  # the last in a dictionary are the latest
                begun = self._begun.pop(number) if number in self._begun else self._begin(number)
                self._begun[number] = begun
            future = self._begun[piece]
            kept = int(self._pieces.sizes[list(self._begun)].sum())
            for number in list(self._begun)[: -len(wanted)]:
                if kept <= KEPT_BYTES:
                    break
                kept -= int(self._pieces.sizes[number])
                del self._begun[number]
        try:
            return future.result()
        except BaseException:
            with self._lock:  # a later reading tries again
                self._begun.pop(piece, None)
            raise

    def _begin(self, piece: int) -> Future[Sequence[bytes]]:
        future: Future[Sequence[bytes]] = Future()

        def read() -> None:
            try:
                future.set_result(self._pieces.read(piece))
            except BaseException as error:  # raised where the piece is asked for
                future.set_exception(error)

        # Not of a pool, whose threads the interpreter waits for at its end: they may be trying again for minutes.
        threading.Thread(target=read, name=f"piece-{piece}", daemon=True).start()
        return future
