"""Exhaustive search: every query is compared with the whole gallery."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np

from lshbench.index.base import Index, Ranking
from lshbench.index.files import (
    MOST_DIMENSIONS,
    check_features,
    check_inverse_norms,
    check_number,
    check_spare_bits,
    open_array,
    open_description,
    save_arrays,
    save_description,
)
from lshbench.types import MOST_BITS, Codes, Encoded, Neighbors, Quantised, RankedBlock, Relevance, Side, Vectors

if TYPE_CHECKING:
    from lshbench.ranking.asymmetric import DecodedGallery
    from lshbench.ranking.cosine import VectorGallery
    from lshbench.ranking.hamming import CodeGallery

MOST_CODEBOOK_BYTES, MOST_BESIDE_BYTES = 1 << 40, 1 << 10
"""Of a quantiser, and of an item's numbers beside its code, as a saved index may say."""

WORDS, VECTORS, NORMS, STORED = "words.npy", "projections.npy", "inverse_norms.npy", "stored.npy"


class FlatIndex(Index):
    """Ranks the whole gallery.

    Binary codes are ranked by Hamming distance, by the cosine of their projections, or against a query's projections;
    what quantisers store against a query's real values; without codes, features by cosine.
    """

    option = "flat"
    takes = frozenset({"binary", "quantised", "nothing"})
    exhaustive = True
    codes: CodeGallery
    vectors: VectorGallery
    stored: np.ndarray
    _codebook_bytes = 0
    _beside_bytes = 0  # of an item
    _decoded: DecodedGallery | None = None

    def rankings(self) -> list[Ranking]:
        if self.gives == "nothing":
            return ["cosine"]
        return ["asymmetric"] if self.gives == "quantised" else ["hamming", "cosine", "asymmetric"]

    def ranked_by(self) -> str:
        return {"nothing": " and method=none", "quantised": " and a quantiser"}.get(self.gives, "")

    @property
    def ranks_features(self) -> bool:
        return self.gives == "nothing"

    @property
    def code_ranking(self) -> Ranking:
        return self.ranking

    def needs_projections(self, side: Side) -> bool:
        return self.gives == "binary" and (
            self.ranking == "cosine" or (self.ranking == "asymmetric" and side == "query")
        )

    def __len__(self) -> int:
        if self.ranking == "asymmetric":
            return len(self.stored)
        return len(self.codes) if self.ranking == "hamming" else len(self.vectors)

    def build(self, gallery: Encoded) -> Self:
        if self.ranking == "hamming":
            from lshbench.ranking.hamming import CodeGallery

            self.codes = CodeGallery.from_codes(gallery.binary)
        elif self.ranking == "asymmetric":
            self._decoded = None
            if isinstance(gallery.codes, Quantised):
                self.stored, self._codebook_bytes = gallery.codes.stored, gallery.codes.codebook_bytes
                self._beside_bytes = gallery.codes.beside_bytes
            else:
                self.stored = gallery.binary.packed
        else:
            from lshbench.ranking.cosine import VectorGallery

            self.vectors = VectorGallery.from_vectors(self._vectors_of(gallery))
        return self

    def _vectors_of(self, items: Encoded) -> np.ndarray:
        return items.features if self.ranks_features else items.projections

    def _decoded_for(self, queries: Vectors) -> DecodedGallery:
        """Return the gallery as the quantiser decodes it."""
        from lshbench.ranking.asymmetric import DecodedGallery

        if self._decoded is None:
            self._decoded = DecodedGallery(self.stored, queries.decode, queries.x.shape[1])
        return self._decoded

    def search(self, queries: Encoded, k: int) -> Neighbors:
        if self.ranking == "asymmetric":
            from lshbench.ranking.asymmetric import asymmetric_neighbors
            from lshbench.ranking.asymmetric_codes import asymmetric_code_neighbors

            if isinstance(queries.codes, Vectors):
                return asymmetric_neighbors(queries.codes, self._decoded_for(queries.codes), k)
            return asymmetric_code_neighbors(queries.projections, Codes(self.stored, queries.binary.bits), k)
        if self.ranking == "hamming":
            from lshbench.ranking.hamming import hamming_neighbors

            return hamming_neighbors(queries.binary, self.codes, k)
        from lshbench.ranking.cosine import cosine_neighbors

        return cosine_neighbors(self._vectors_of(queries), self.vectors, k)

    def rank(self, queries: Encoded, relevance: Relevance, *, positions: int | None = None) -> Iterator[RankedBlock]:
        if self.ranking == "hamming":
            from lshbench.ranking.hamming import hamming_blocks

            return hamming_blocks(queries.binary, self.codes, relevance, positions=positions)
        if self.ranking == "asymmetric":
            from lshbench.ranking.asymmetric import asymmetric_blocks
            from lshbench.ranking.asymmetric_codes import asymmetric_code_blocks

            if isinstance(queries.codes, Vectors):
                decoded = self._decoded_for(queries.codes)
                return asymmetric_blocks(queries.codes, decoded, relevance, positions=positions)
            codes = Codes(self.stored, queries.binary.bits)
            return asymmetric_code_blocks(queries.projections, codes, relevance, positions=positions)
        from lshbench.ranking.cosine import cosine_blocks

        return cosine_blocks(self._vectors_of(queries), self.vectors, relevance, positions=positions)

    @property
    def bytes(self) -> int:
        if self.ranking == "hamming":
            return self.codes.words.nbytes
        if self.ranking == "asymmetric":
            return self.stored.nbytes + self._codebook_bytes + len(self) * self._beside_bytes
        own = 0 if self.ranks_features else self.vectors.vectors.nbytes
        return own + self.vectors.inverse_norms.nbytes

    @property
    def code_bytes(self) -> int:
        if self.ranking == "hamming":
            return len(self) * ((self.codes.bits + 7) // 8)
        if self.ranking == "asymmetric":
            return self.stored.nbytes
        return 0 if self.ranks_features else self.vectors.vectors.nbytes

    @property
    def fixed_bytes(self) -> int:
        return self._codebook_bytes

    @property
    def feature_bytes(self) -> int:
        return self.vectors.vectors.nbytes if self.ranks_features else 0

    def save(self, folder: Path) -> None:
        """Write codes, projections, or the features' inverse norms, and ``index.json`` last."""
        details: dict[str, int]
        if self.ranking == "hamming":
            file, array, items = WORDS, self.codes.words, len(self.codes)
            details = {"bits": self.codes.bits}
        elif self.ranking == "asymmetric":
            file, array, items = STORED, self.stored, len(self.stored)
            details = {"bytes": self.stored.shape[1]}
            details |= {"codebook_bytes": self._codebook_bytes, "beside_bytes": self._beside_bytes}
        else:
            items, width = self.vectors.vectors.shape
            if self.ranks_features:
                file, array = NORMS, self.vectors.inverse_norms
                details = {"dim": width, "scaled": bool(self.vectors.scaled)}
            else:
                file, array, details = VECTORS, self.vectors.vectors, {"bits": width}
        save_arrays(folder, {file: array})
        common = {"index": self.option, "gives": self.gives, "ranking": self.ranking, "items": items, "file": file}
        save_description(folder, common | details)

    @classmethod
    def open(cls, folder: Path, features: np.ndarray | None = None) -> Self:
        from lshbench.ranking.cosine import VectorGallery
        from lshbench.ranking.hamming import CodeGallery

        described = open_description(folder, cls.option)
        index = cls(gives=described["gives"], ranking=described["ranking"])
        items = described["items"]
        if index.ranks_features:
            gallery = check_features(features, described)
            norms = check_inverse_norms(NORMS, open_array(folder / NORMS, np.float32, (items,)))
            index.vectors = VectorGallery(gallery, norms, bool(described["scaled"]))
            return index
        if index.ranking == "asymmetric":
            # Any bytes are a code; that they are as many as the method's, and decode to finite numbers, is seen by the
            # first query.
            width = check_number(described, "bytes", MOST_DIMENSIONS)
            index.stored = open_array(folder / STORED, np.uint8, (items, width))
            if "codebook_bytes" in described:  # not where an earlier version has saved it
                index._codebook_bytes = check_number(described, "codebook_bytes", MOST_CODEBOOK_BYTES, least=0)
            if "beside_bytes" in described:
                index._beside_bytes = check_number(described, "beside_bytes", MOST_BESIDE_BYTES, least=0)
            return index
        bits = check_number(described, "bits", MOST_BITS)
        if index.ranking == "cosine":
            index.vectors = VectorGallery.from_vectors(open_array(folder / VECTORS, np.float32, (items, bits)))
        else:
            words = open_array(folder / WORDS, np.uint64, ((bits + 63) // 64, items))
            check_spare_bits(WORDS, words.T, bits)
            index.codes = CodeGallery(words, bits)
        return index
