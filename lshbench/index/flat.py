"""Exhaustive search: every query is compared with the whole gallery."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from lshbench.errors import wrong_value
from lshbench.index.base import Index
from lshbench.index.files import check_vectors, open_array, open_description, save_array, save_description
from lshbench.types import Codes, Encoded, Neighbors, RankedBlock, Relevance, Side

if TYPE_CHECKING:
    from lshbench.ranking.cosine import VectorGallery
    from lshbench.ranking.hamming import CodeGallery


VECTORS = ("embedding", "features")


class FlatIndex(Index):
    """Codes ranked by Hamming distance, or embeddings (whose signs are the codes) or features by cosine.

    Args:
        vectors: what is ranked by cosine: ``embedding``, the method's projections, or ``features``, as they were
            loaded, with which the method has nothing to do.
    """

    exhaustive = True
    ranking: str
    codes: CodeGallery
    compared: VectorGallery

    def __init__(self, *, vectors: str = "embedding") -> None:
        if vectors not in VECTORS:
            raise wrong_value("index.vectors", vectors, " or ".join(VECTORS))
        self.vectors = vectors

    @property
    def ranks_features(self) -> bool:
        return self.vectors == "features"

    @property
    def uses_method(self) -> bool:
        return not self.ranks_features

    def wants_embedding(self, side: Side, ranking: str) -> bool:
        return ranking == "cosine" and not self.ranks_features

    def check(self, method_kind: str, ranking: str) -> str:
        if self.ranks_features:
            if ranking == "hamming":
                raise wrong_value("ranking", ranking, "cosine or auto with index.vectors=features")
            return "cosine"
        if method_kind != "binary":
            raise wrong_value(
                "index",
                "flat",
                f"ivf for a method that gives {method_kind} (flat ranks codes, or index.vectors=features)",
            )
        return "hamming" if ranking == "auto" else ranking

    def build(self, gallery: Encoded, ranking: str) -> Self:
        self.ranking = ranking
        if ranking == "hamming":
            from lshbench.ranking.hamming import CodeGallery

            if gallery.codes is None:
                raise ValueError("ranking by Hamming distance takes codes")
            self.codes = CodeGallery.from_codes(gallery.codes)
        else:
            from lshbench.ranking.cosine import VectorGallery

            self.compared = VectorGallery.from_vectors(self._vectors_of(gallery))
        return self

    def _vectors_of(self, items: Encoded) -> np.ndarray:
        if self.ranks_features:
            return items.vectors
        if items.embedding is None:
            raise ValueError("ranking by cosine takes embeddings: encode(..., embedding=True)")
        return items.embedding

    def search(self, queries: Encoded, k: int) -> Neighbors:
        if self.ranking == "hamming":
            from lshbench.ranking.hamming import hamming_neighbors

            assert queries.codes is not None
            return hamming_neighbors(queries.codes, self.codes, k)
        from lshbench.ranking.cosine import cosine_neighbors

        return cosine_neighbors(self._vectors_of(queries), self.compared, k)

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
        from lshbench.ranking.cosine import cosine_blocks

        return cosine_blocks(self._vectors_of(queries), self.compared, relevance, positions=positions)

    @property
    def bytes(self) -> int:
        if self.ranking == "hamming":
            return self.codes.words.nbytes
        own = 0 if self.ranks_features else self.compared.vectors.nbytes
        return own + self.compared.inverse_norms.nbytes

    def save(self, folder: Path) -> None:
        """Write codes, ``embeddings.npy`` or features' norms, and ``index.json`` last.

        Codes are written twice: as ``words.npy``, which is searched where it lies, and as ``codes.faiss``
        (``IndexBinaryFlat``) for faiss.
        """
        description = {"index": "flat", "ranking": self.ranking}
        if self.ranking == "hamming":
            import faiss

            # faiss counts in whole bytes; the unused last bits are zero everywhere and add nothing to a
            # distance.
            width = (self.codes.bits + 7) // 8
            packed = np.ascontiguousarray(self.codes.words.T).view(np.uint8)[:, :width]
            index = faiss.IndexBinaryFlat(8 * width)
            index.add(np.ascontiguousarray(packed))
            faiss.write_index_binary(index, str(folder / "codes.faiss"))
            save_array(folder / "words.npy", self.codes.words)
            details = {
                "bits": self.codes.bits,
                "items": len(self.codes),
                "file": "codes.faiss",
                "words": "words.npy",
            }
        elif self.ranks_features:
            save_array(folder / "inverse_norms.npy", self.compared.inverse_norms)
            details = {
                "vectors": "features",
                "dim": self.compared.vectors.shape[1],
                "items": len(self.compared),
                "scaled": bool(self.compared.scaled),
                "file": "inverse_norms.npy",
            }
        else:
            save_array(folder / "embeddings.npy", self.compared.vectors)
            details = {
                "bits": self.compared.vectors.shape[1],
                "items": len(self.compared),
                "file": "embeddings.npy",
            }
        save_description(folder, description | details)

    @classmethod
    def open(cls, folder: Path, vectors: np.ndarray | None = None) -> Self:
        """Return a saved index, its codes, embeddings or norms as memory maps.

        Codes that an earlier version saved are in ``codes.faiss`` alone, which faiss reads into memory.

        Args:
            folder: where :meth:`save` wrote.
            vectors: the gallery's features, float32 ``(n, d)``, if it ranks features; may be a memory map.

        Raises:
            ValueError: it is no saved index of this kind, or the vectors are not its gallery's.
        """
        description = open_description(folder, "flat")
        path = folder / description["file"]
        if description.get("vectors") == "features":
            from lshbench.ranking.cosine import VectorGallery

            index = cls(vectors="features")
            index.ranking = "cosine"
            gallery = check_vectors(vectors, description)
            index.compared = VectorGallery(gallery, open_array(path), description["scaled"])
            return index
        bits = description["bits"]
        if description["ranking"] != "hamming":
            return cls().build(Encoded(np.empty((0, 0), np.float32), embedding=open_array(path)), "cosine")
        if "words" in description:
            from lshbench.ranking.hamming import CodeGallery

            words = open_array(folder / description["words"])
            if words.dtype != np.uint64 or words.shape != ((bits + 63) // 64, description["items"]):
                raise ValueError(f"words of {bits}-bit codes of {description['items']} items, not {words.shape}")
            index = cls()
            index.ranking, index.codes = "hamming", CodeGallery(words, bits)
            return index
        import faiss

        stored: Any = faiss.read_index_binary(str(path))
        packed = faiss.vector_to_array(stored.xb).reshape(stored.ntotal, -1)
        return cls().build(Encoded(np.empty((0, 0), np.float32), codes=Codes(packed, bits)), "hamming")
