"""What quantisers share: few bytes that stand for a vector, and queries that keep their real values.

The features are compared by cosine, and so a quantiser sees them at length 1, less the training items' mean.
Principal axes and a random rotation of them reduce the numbers of an item to as many as its bytes have room for, and
spread their variance evenly.

Items are ranked by the Euclidean distance of a query to what their bytes decode to, which among vectors of length 1 is
the order of cosines.  What is decoded is shorter than that, and not equally: by its inner product with the query alone,
items would come later the worse they are quantised.  ``rabitq`` has factors for that, and estimates the product.

A code's bytes are exactly ``bits / 8``, correction factors included, whichever the method: what doesn't fit is refused.
"""

from __future__ import annotations

from abc import abstractmethod
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np

from lshbench.errors import UsageError, wrong_value
from lshbench.methods.base import ENCODE_ROWS, Method, check_bits
from lshbench.methods.linear import random_rotation
from lshbench.training.constraints import Count, check_fields
from lshbench.training.pca import principal_axes
from lshbench.types import ByteTables, Features, Progress, Quantised, Side, Terms, Vectors

LAST_BYTES = 4
"""Of the number that items have besides what is stored where bytes stand for the same numbers (:class:`ByteTables`)."""

LARGEST = 1e6
"""Magnitude that no number learnt from vectors of length 1 comes near."""


class Quantiser(Method):
    """Quantiser of features at length 1, reduced by principal axes and a random rotation.

    Args:
        bits: stored for an item, a multiple of 8.
        seed: of the training items drawn, the rotation, and the training.
        dim: numbers that an item is reduced to; ``auto``: as the quantiser's module says.
        max_points: training items that everything is learnt from, drawn by the seed.

    Attributes:
        least_items: training items that there have to be.
        mean: float32 ``(d,)``, of the training items at length 1.
        weight: float32 ``(d, dim)``.
    """

    gives = "quantised"
    least_items: ClassVar[int] = 1
    bits: int
    dim: int
    max_points: Count
    mean: np.ndarray
    weight: np.ndarray
    _quantiser: Any

    def __init__(self, bits: int, seed: int, dim: int | str, max_points: int) -> None:
        check_bits(bits)
        if bits % 8:
            raise wrong_value("bits", bits, "a multiple of 8: a quantiser stores whole bytes")
        if dim != "auto" and (isinstance(dim, bool) or not isinstance(dim, int) or dim < 1):
            raise wrong_value("method.dim", dim, "auto, or a number of components, at least 1")
        self.bits, self.seed, self.max_points = bits, seed, max_points
        self.history = []
        check_fields("method", self)
        self.dim = self._check_dim(dim)

    @property
    def bytes(self) -> int:
        """Bytes of an item."""
        return self.bits // 8

    @abstractmethod
    def _check_dim(self, dim: int | str) -> int:
        """Return how many numbers an item is reduced to, at most; refuse what the bytes have no room for."""

    def _reduced_dim(self, most: int) -> int:
        """Return how many numbers an item is reduced to, of at most ``most`` principal components.

        Raises:
            UsageError: there are fewer than the code takes.
        """
        if self.dim > most:
            raise UsageError(
                f"bits={self.bits}: expected fewer: the code has {self.dim} numbers an item, and the training items "
                f"have {most} components (after pca.dim, if any)"
            )
        return self.dim

    def fit(self, train: Features, progress: Progress) -> Self:
        generator = np.random.default_rng(self.seed)
        rows: slice | np.ndarray = slice(None)
        if self.max_points < len(train):
            rows = np.sort(generator.choice(len(train), self.max_points, replace=False))
        sample = at_length_one(train.x[rows])
        if len(sample) < self.least_items:
            least = f"at least {self.least_items}, as many as a codebook has entries"
            if len(sample) < len(train):
                raise wrong_value("method.max_points", self.max_points, f"{least}: it is learnt from so many items")
            raise UsageError(f"{len(sample)} training items: expected {least}")
        self.dim = self._reduced_dim(min(sample.shape))
        axes = principal_axes(sample, self.dim)
        rotation = random_rotation(self.dim, generator)
        self.mean, self.weight = axes.mean, np.ascontiguousarray(axes.weight @ rotation, np.float32)
        with progress("training the quantiser", total=1, unit="codes") as advance:
            self._train((sample - self.mean) @ self.weight)
            advance(1)
        self._forget()
        return self

    def _forget(self) -> None:
        """Drop what was made of what was learnt before."""
        self.__dict__.pop("_addends", None)

    @abstractmethod
    def _train(self, vectors: np.ndarray) -> None:
        """Learn from vectors, float32 ``(m, dim)``; may rotate them further (:attr:`weight`)."""

    def _compress(self, vectors: np.ndarray) -> np.ndarray:
        """Return what is stored for vectors, float32 ``(n, dim)``: uint8 ``(n, bytes)``; here by :attr:`_quantiser`."""
        return self._quantiser.compute_codes(np.ascontiguousarray(vectors))

    def _decompress(self, stored: np.ndarray) -> np.ndarray:
        """Return the vectors that stored bytes stand for, float32 ``(n, dim)``; here by :attr:`_quantiser`."""
        return self._quantiser.decode(stored)

    @abstractmethod
    def _learnt(self) -> dict[str, np.ndarray]:
        """Return what :meth:`_train` learnt, by name."""

    @abstractmethod
    def _relearn(self, state: dict[str, np.ndarray]) -> None:
        """Take over what :meth:`_learnt` returned; raise ValueError for arrays of another shape or type."""

    @cached_property
    def _addends(self) -> np.ndarray | None:
        """What each value of each byte stands for, float32 ``(parts, books, width, 256)``: a vector consists of parts,
        and what the bytes of a part stand for adds up.  None for codes that have to be decoded.
        """
        return None

    def _apart(self) -> np.ndarray:
        """Return :attr:`_addends` of codes whose bytes stand for numbers of their own, in the vector's order."""
        values = np.repeat(np.arange(256, dtype=np.uint8)[:, None], self.bytes, axis=1)
        numbers = self._decompress(values).reshape(256, self.bytes, 1, -1)
        return np.ascontiguousarray(numbers.transpose(1, 2, 3, 0))

    @property
    def _terms(self) -> Terms | None:
        """What codes are scored with as they are, or None."""
        return None if self._addends is None else self._tables

    def _tables(self, x: np.ndarray) -> ByteTables:
        addends = self._addends
        assert addends is not None
        numbers, last = x[:, :-1], x[:, -1]
        parts, books, width, values = addends.shape
        products = numbers.reshape(len(x), parts, 1, width).transpose(1, 2, 0, 3) @ addends
        tables = np.ascontiguousarray(products.transpose(2, 0, 1, 3).reshape(len(x), parts * books, values))
        if not self._adds_up:
            tables += last[:, None, None] * minus_half_square(addends[:, 0].transpose(0, 2, 1))
        start = np.zeros(len(x), np.float32)
        return ByteTables(((0, tables),), start, last=last if self._adds_up else None)

    @property
    def _adds_up(self) -> bool:
        """Whether several bytes stand for the same numbers: a square length is then no sum of what each byte adds."""
        return self._addends is not None and self._addends.shape[1] > 1

    def encode(self, x: np.ndarray, side: Side, *, projections: bool = False) -> Quantised | Vectors:
        if side == "query":
            return self._query_vectors(at_length_one(x))
        stored = np.empty((len(x), self.bytes), np.uint8)
        for start in range(0, len(x), ENCODE_ROWS):
            part = slice(start, start + ENCODE_ROWS)
            stored[part] = self._compress((at_length_one(x[part]) - self.mean) @ self.weight)
        return Quantised(stored, self.decode, self.codebook_bytes, LAST_BYTES if self._adds_up else 0)

    def _query_vectors(self, units: np.ndarray) -> Vectors:
        """Return queries of length 1 as :meth:`decode` goes with: the product is less half the squared distance."""
        centred = units - self.mean
        offset = 1 + minus_half_square(centred)
        numbers = np.empty((len(units), self.dim + 1), np.float32)
        np.matmul(centred, self.weight, out=numbers[:, :-1])
        numbers[:, -1] = 1
        return Vectors(numbers, offset, self.decode, self._terms)

    @property
    def codebook_bytes(self) -> int:
        """Bytes of what was learnt that scores of codes are made with; mean and axes belong to encoding."""
        return sum(array.nbytes for array in self._learnt().values())

    def decode(self, stored: np.ndarray) -> np.ndarray:
        """Return the vectors that stored bytes stand for and a last number, as queries have: float32 ``(n, dim + 1)``.

        It is minus half the square of the vector's length; of ``rabitq``, what its factors add to a product.

        Raises:
            ValueError: they are not uint8 ``(n, bytes)``.
        """
        if stored.dtype != np.uint8 or stored.ndim != 2 or stored.shape[1] != self.bytes:
            raise ValueError(f"codes of {self.bytes} bytes, not {stored.dtype} {stored.shape}")
        return self._completed(self._decompress(np.ascontiguousarray(stored)))

    def _completed(self, vectors: np.ndarray) -> np.ndarray:
        """Return what :meth:`_decompress` gives with the last number that products with queries take."""
        numbers = np.empty((len(vectors), self.dim + 1), np.float32)
        numbers[:, :-1], numbers[:, -1] = vectors, minus_half_square(vectors)
        return numbers

    def state(self) -> dict[str, np.ndarray]:
        return {"mean": self.mean, "weight": self.weight, **self._learnt()}

    def restore(self, state: dict[str, np.ndarray]) -> Self:
        self.mean = checked(state, "mean", (None,))
        self.weight = checked(state, "weight", (len(self.mean), self.dim if self._dim_is_known else None))
        self.dim = self.weight.shape[1]
        self._relearn(state)
        self._forget()
        return self

    @property
    def _dim_is_known(self) -> bool:
        """Whether :attr:`dim` is what items are reduced to before any have been seen."""
        return True


def minus_half_square(x: np.ndarray) -> np.ndarray:
    """Return minus half the square of lengths, float32 ``(...)``, of vectors ``(..., d)``."""
    return np.float32(-0.5) * np.einsum("...j,...j->...", x, x)


def at_length_one(x: np.ndarray) -> np.ndarray:
    """Return vectors at length 1, float32 ``(n, d)``, in new memory; zero vectors stay zero."""
    norms = np.sqrt(np.einsum("ij,ij->i", x, x, dtype=np.float64))[:, None]
    inverse = np.divide(1, norms, out=np.zeros_like(norms), where=norms > 0)
    # Inverse norms beyond float32's range would make numbers infinite, or zero.
    limits = np.finfo(np.float32)
    extreme = np.flatnonzero((inverse > limits.max) | ((inverse < limits.tiny) & (norms > 0)))
    exact = x[extreme] * inverse[extreme]
    inverse[extreme] = 0
    found = np.ascontiguousarray(x * inverse.astype(np.float32), np.float32)
    found[extreme] = exact
    return found


def checked(
    state: dict[str, np.ndarray],
    name: str,
    shape: tuple[int | None, ...],
    dtype: type = np.float32,
    most: float = LARGEST,
) -> np.ndarray:
    """Return an array of a saved state.

    Args:
        state: arrays by name.
        name: which.
        shape: what it has to be; None for any extent above 0.
        dtype: what it has to hold.
        most: the largest magnitude of its numbers.

    Raises:
        ValueError: it is another array, or none, or holds numbers that are not finite or beyond ``most``: products with
            them could overflow, and compiled code finds places by them.
    """
    array = state.get(name)
    if array is None:
        raise ValueError(f"{name} is missing")
    fits = array.ndim == len(shape) and all(
        have == want if want is not None else have > 0 for have, want in zip(array.shape, shape, strict=True)
    )
    if array.dtype != dtype or not fits:
        raise ValueError(f"{name} is {array.dtype} {array.shape}, expected {np.dtype(dtype)} {shape}")
    if not (np.abs(array) <= most).all():
        raise ValueError(f"{name} holds numbers that are not from {-most:g} to {most:g}")
    return np.ascontiguousarray(array)
