"""Exhaustive search: every query is compared with the whole gallery."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from lshbench.errors import wrong_value
from lshbench.index.base import Index
from lshbench.index.files import open_array, open_description, save_array, save_description
from lshbench.types import Codes, Encoded, Neighbors, RankedBlock, Relevance

if TYPE_CHECKING:
    from lshbench.ranking.hamming import CodeGallery
    from lshbench.ranking.real import VectorGallery


class FlatIndex(Index):
    """Codes ranked by Hamming distance, or embeddings (whose signs are the codes) by cosine."""

    exhaustive = True
    ranking: str
    codes: CodeGallery
    packed: np.ndarray
    embedding: VectorGallery

    def check(self, method_kind: str, ranking: str) -> str:
        if method_kind != "binary":
            raise wrong_value(
                "index", "flat", f"ivf for a method that gives {method_kind} (flat ranks codes or embeddings)"
            )
        return "hamming" if ranking == "auto" else ranking

    def build(self, gallery: Encoded, ranking: str) -> Self:
        self.ranking = ranking
        if ranking == "hamming":
            from lshbench.ranking.hamming import CodeGallery

            if gallery.codes is None:
                raise ValueError("ranking by Hamming distance takes codes")
            self.packed = gallery.codes.packed
            self.codes = CodeGallery.from_codes(gallery.codes)
        else:
            if gallery.embedding is None:
                raise ValueError("ranking by cosine takes embeddings: encode(..., embedding=True)")
            from lshbench.ranking.real import VectorGallery

            self.embedding = VectorGallery.from_vectors(gallery.embedding)
        return self

    def search(self, queries: Encoded, k: int) -> Neighbors:
        if self.ranking == "hamming":
            from lshbench.ranking.hamming import hamming_neighbors

            assert queries.codes is not None
            return hamming_neighbors(queries.codes, self.codes, k)
        from lshbench.ranking.real import cosine_neighbors

        assert queries.embedding is not None
        return cosine_neighbors(queries.embedding, self.embedding, k)

    def rank(
        self,
        queries: Encoded,
        relevance: Relevance,
        *,
        positions: bool = True,
        position_limit: int | None = None,
    ) -> Iterator[RankedBlock]:
        if self.ranking == "hamming":
            from lshbench.ranking.hamming import hamming_blocks

            assert queries.codes is not None
            return hamming_blocks(
                queries.codes, self.codes, relevance, positions=positions, position_limit=position_limit
            )
        from lshbench.ranking.real import cosine_blocks

        assert queries.embedding is not None
        return cosine_blocks(queries.embedding, self.embedding, relevance, positions=positions)

    @property
    def bytes(self) -> int:
        if self.ranking == "hamming":
            return self.codes.words.nbytes
        return self.embedding.vectors.nbytes + self.embedding.inverse_norms.nbytes

    def save(self, folder: Path) -> None:
        """Write ``codes.faiss`` (an ``IndexBinaryFlat``) or ``embeddings.npy``, and ``index.json`` last."""
        description = {"index": "flat", "ranking": self.ranking}
        if self.ranking == "hamming":
            import faiss

            # faiss counts in whole bytes; the unused last bits are zero everywhere and add nothing to a
            # distance.
            index = faiss.IndexBinaryFlat(8 * self.packed.shape[1])
            index.add(np.ascontiguousarray(self.packed))
            faiss.write_index_binary(index, str(folder / "codes.faiss"))
            details = {"bits": self.codes.bits, "items": len(self.packed), "file": "codes.faiss"}
        else:
            save_array(folder / "embeddings.npy", self.embedding.vectors)
            details = {
                "bits": self.embedding.vectors.shape[1],
                "items": len(self.embedding),
                "file": "embeddings.npy",
            }
        save_description(folder, description | details)

    @classmethod
    def open(cls, folder: Path, vectors: np.ndarray | None = None) -> Self:
        """Return a saved index.

        Args:
            folder: where :meth:`save` wrote.
            vectors: not needed: codes or embeddings are in the folder.

        Raises:
            ValueError: it is no saved index of this kind.
        """
        description = open_description(folder, "flat")
        path, bits = folder / description["file"], description["bits"]
        if description["ranking"] != "hamming":
            return cls().build(Encoded(np.empty((0, 0), np.float32), embedding=open_array(path)), "cosine")
        import faiss

        stored: Any = faiss.read_index_binary(str(path), faiss.IO_FLAG_MMAP)
        packed = faiss.vector_to_array(stored.xb).reshape(stored.ntotal, -1)
        return cls().build(Encoded(np.empty((0, 0), np.float32), codes=Codes(packed, bits)), "hamming")
