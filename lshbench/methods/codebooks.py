"""What quantisers with codebooks share: a byte of the code chooses one of 256 vectors of a codebook."""

from __future__ import annotations

from abc import abstractmethod
from functools import cached_property
from typing import Any, ClassVar

import faiss
import numpy as np

from lshbench.errors import UsageError, wrong_value
from lshbench.methods.quantiser import Quantiser, checked

ENTRIES = 256
"""Vectors of a codebook: what a byte can choose from."""


class CodebookQuantiser(Quantiser):
    """A quantiser whose every byte chooses from a codebook of its own.

    ``dim: auto`` is as many components as the code has bits, eight for each byte, or what the training items have of
    them, rounded down so that each part of the vector has as many.
    """

    least_items = ENTRIES

    @property
    def parts(self) -> int:
        """Parts of a vector that are quantised apart, all of one width."""
        return self.bytes

    def _check_dim(self, dim: int | str) -> int:
        if dim == "auto":
            return self.bits
        assert isinstance(dim, int)
        if dim % self.parts:
            raise wrong_value("method.dim", dim, f"a multiple of {self.parts}, the parts of a vector, with this code")
        self._asked = dim
        return dim

    _asked: int | None = None

    def _reduced_dim(self, most: int) -> int:
        if self._asked is not None:
            if self._asked > most:
                raise wrong_value("method.dim", self._asked, f"at most {most}, the training items' components")
            return self._asked
        dim = min(self.bits, most) // self.parts * self.parts
        if not dim:
            raise UsageError(
                f"bits={self.bits}: expected fewer: a code of {self.bytes} bytes has {self.parts} parts, and the "
                f"training items have {most} components (after pca.dim, if any)"
            )
        return dim

    @property
    def _dim_is_known(self) -> bool:
        return self._asked is not None


class AdditiveQuantiser(CodebookQuantiser):
    """A quantiser that adds up a vector of each of several codebooks.

    Vectors are cut into parts with at most :attr:`most_books` codebooks each, which bounds the time: the work for
    a part grows with the square of their number.

    Attributes:
        most_books: codebooks of a part, at most.
    """

    most_books: ClassVar[int]
    _quantisers: list[Any]

    @property
    def books(self) -> int:
        """Codebooks of a part: the largest number that the bytes are a multiple of, up to the most."""
        return max(count for count in range(1, self.most_books + 1) if self.bytes % count == 0)

    @property
    def parts(self) -> int:
        return self.bytes // self.books

    @abstractmethod
    def _make(self) -> Any:
        """Return faiss's quantiser of one part, untrained."""

    def _train(self, vectors: np.ndarray) -> None:
        self._quantisers = [self._make() for _ in range(self.parts)]
        for quantiser, part in zip(self._quantisers, np.split(vectors, self.parts, axis=1), strict=True):
            quantiser.train(np.ascontiguousarray(part))

    def _compress(self, vectors: np.ndarray) -> np.ndarray:
        parts = zip(self._quantisers, np.split(vectors, self.parts, axis=1), strict=True)
        return np.concatenate(
            [quantiser.compute_codes(np.ascontiguousarray(part)) for quantiser, part in parts], axis=1
        )

    def _decompress(self, stored: np.ndarray) -> np.ndarray:
        parts = zip(self._quantisers, np.split(stored, self.parts, axis=1), strict=True)
        return np.concatenate([quantiser.decode(np.ascontiguousarray(part)) for quantiser, part in parts], axis=1)

    @cached_property
    def _addends(self) -> np.ndarray:
        return np.ascontiguousarray(self._learnt()["codebooks"].transpose(0, 1, 3, 2))

    def _learnt(self) -> dict[str, np.ndarray]:
        books = [faiss.vector_to_array(quantiser.codebooks) for quantiser in self._quantisers]
        return {"codebooks": np.stack(books).reshape(self.parts, self.books, ENTRIES, self.dim // self.parts)}

    def _relearn(self, state: dict[str, np.ndarray]) -> None:
        if self.dim % self.parts:
            raise ValueError(f"{self.dim} numbers in {self.parts} parts")
        books = checked(state, "codebooks", (self.parts, self.books, ENTRIES, self.dim // self.parts))
        self._quantisers = [self._make() for _ in range(self.parts)]
        for quantiser, own in zip(self._quantisers, books, strict=True):
            faiss.copy_array_to_vector(own.ravel(), quantiser.codebooks)
            quantiser.is_trained = True
