"""Papers' "asymmetric Hamming", against distances that are written out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from test_timing import sides

from lshbench.evaluation.asymmetric_hamming import DEFINITION, asymmetric_hamming
from lshbench.index.buckets import BucketsIndex
from lshbench.index.flat import FlatIndex
from lshbench.metrics.definitions import DEFINITIONS
from lshbench.types import Codes


def test_rankings_are_those_of_the_l1_distance_to_squashed_projections() -> None:
    gallery, queries, relevance = sides()
    bits = queries.binary.bits
    projections = np.random.default_rng(0).standard_normal((len(queries), bits)).astype(np.float32) * 3
    queries = replace(queries, codes=replace(Codes.from_signs(projections), projections=projections))
    sigmoid = 1 / (1 + np.exp(-projections.astype(np.float64)))
    distances = np.abs(sigmoid[:, None] - gallery.binary.unpack()).sum(axis=2).round(9)
    total = 0.0
    for row, label in zip(distances, relevance.queries, strict=True):
        hits = relevance.gallery == label
        # One term for each relevant item: the expected hits up to it over the expected rank, by enumeration of ties.
        values, tied = np.unique(row, return_inverse=True)
        found = before = precision = 0.0
        for number in range(len(values)):
            own = tied == number
            size, relevant = own.sum(), hits[own].sum()
            for place in range(1, size + 1):
                share = (place - 1) * (relevant - 1) / (size - 1) if size > 1 else 0
                precision += relevant / size * (found + 1 + share) / (before + place)
            found, before = found + relevant, before + size
        total += precision / hits.sum()
    value = asymmetric_hamming(FlatIndex(ranking="asymmetric").build(gallery), queries, relevance)
    assert value == {DEFINITION: pytest.approx(total / len(queries), abs=1e-6)}
    assert DEFINITION in DEFINITIONS
    assert asymmetric_hamming(FlatIndex().build(gallery), queries, relevance) == {}
    asymmetric = BucketsIndex(rescore="embedding", ranking="asymmetric", tables=1, bits_per_table=2).build(gallery)
    assert asymmetric_hamming(asymmetric, queries, relevance) == {}
