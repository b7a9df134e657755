"""Ranking of binary codes by a query's projections, against exact sums."""

from __future__ import annotations

import numpy as np
import pytest
from brute_force import nearest, ranking, read, relevant_matrix

from lshbench.ranking import asymmetric
from lshbench.ranking.asymmetric import DecodedGallery, Queries, asymmetric_blocks, asymmetric_neighbors
from lshbench.types import Codes, Relevance


@pytest.mark.parametrize(("bits", "items"), [(3, 500), (64, 900), (130, 300)])
def test_rankings_are_those_of_the_sums_of_differing_bits(
    bits: int, items: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asymmetric, "DECODED_BYTES", 4 * bits * 200)  # several tiles
    generator = np.random.default_rng(bits)
    projections = (generator.standard_normal((20, bits)) * 10.0 ** generator.integers(-20, 20, (20, 1))).astype(
        np.float32
    )
    projections[3] = 0
    codes = Codes.from_signs(generator.standard_normal((items, bits)))
    codes.packed[items // 2 :] = codes.packed[: items - items // 2]  # many ties
    relevance = Relevance(generator.integers(0, 3, 20), generator.integers(0, 3, items))
    queries, gallery = Queries.of_projections(projections), DecodedGallery.of_codes(codes.packed, bits)
    differing = (projections >= 0)[:, None] != codes.unpack().astype(bool)
    exact = np.where(differing, np.abs(queries.x.astype(np.float64))[:, None], 0).sum(axis=2)
    expected = [ranking(row, own) for row, own in zip(exact, relevant_matrix(relevance), strict=True)]
    groups, positions, _, ranked = read(asymmetric_blocks(queries, gallery, relevance))
    assert groups == [pair[0] for pair in expected]
    assert positions == [pair[1] for pair in expected]
    assert ranked == [items] * 20
    found = asymmetric_neighbors(queries, gallery, 40)
    for row, ids in zip(exact, found.ids, strict=True):
        assert ids.tolist() == nearest(row, 40).tolist()
    # Distances are the magnitudes of the projections themselves, as near as float32 holds their sum.
    sums = np.where(differing, np.abs(projections.astype(np.float64))[:, None], 0).sum(axis=2)
    total = np.abs(projections.astype(np.float64)).sum(axis=1)[:, None]
    assert (np.abs(found.distances - np.take_along_axis(sums, found.ids, axis=1)) <= bits * total / 2**23).all()


def test_more_hits_than_items_are_padded_and_projections_must_be_finite() -> None:
    codes = Codes.from_signs(np.eye(5))
    found = asymmetric_neighbors(Queries.of_projections(np.ones((2, 5), np.float32)), DecodedGallery.of_codes(
        codes.packed, 5), 7)  # fmt: skip
    assert (found.ids[:, 5:] == -1).all()
    assert np.isinf(found.distances[:, 5:]).all()
    with pytest.raises(ValueError, match="codes of 1 bytes for queries of 12 bits"):
        DecodedGallery.of_codes(codes.packed, 12)
    with pytest.raises(ValueError, match="NaN or infinite"):
        Queries.of_projections(np.full((1, 5), np.nan, np.float32))
