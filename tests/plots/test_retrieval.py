"""The picture of queries and their hits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from example_run import METRICS
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageColor

from lshbench.plots.draw import draw_retrieval
from lshbench.plots.retrieval import (
    CAPTION,
    FRAME,
    GAP,
    HEADER,
    MARGIN,
    QUERY_GAP,
    TILE,
    Result,
    Row,
    choose_queries,
    chosen_rows,
    label_text,
    letterboxed,
    retrieval,
)
from lshbench.plots.style import GRID, OTHER_CLASS, SAME_CLASS
from lshbench.ranking.listed import relevant_results
from lshbench.run_folder import Run, RunMetrics
from lshbench.types import Features, Neighbors, Relevance

CELL = TILE + 2 * FRAME


class Split:
    def __init__(self, names: list[str] | None) -> None:
        self.class_names = names


class Pictures:
    """Items whose picture is one grey level, so that one can see which item is where."""

    def __init__(self, names: list[str] | None = None) -> None:
        self.gallery = Split(names)

    def image(self, item: int) -> Image.Image:
        return Image.new("RGB", (20, 20), (item, item, item))


def features(labels: np.ndarray, first: int) -> Features:
    return Features(np.zeros((len(labels), 1), np.float32), labels, first + np.arange(len(labels)))


def pixel_of_hit(image: Image.Image, row: int, column: int, dx: int, dy: int) -> tuple[int, int, int]:
    left = MARGIN + CELL + QUERY_GAP + column * (CELL + GAP)
    top = HEADER + row * (CELL + CAPTION + GAP)
    pixel = image.getpixel((left + dx, top + dy))
    assert isinstance(pixel, tuple)
    return pixel


def test_hits_stand_in_order_framed_by_whether_they_share_the_query_s_label(tmp_path: Path) -> None:
    gallery, queries = features(np.array([0, 1, 0]), 100), features(np.array([1, 0]), 200)
    ids = np.array([[1, 0, 2], [2, 1, -1]])
    neighbors = Neighbors(ids, np.where(ids < 0, np.inf, 7.0).astype(np.float32), np.array([3, 2]))
    run, relevant = Run(tmp_path, RunMetrics.from_json(METRICS)), relevant_results(Relevance(queries.y, gallery.y), ids)
    path = draw_retrieval(run, Pictures(["cat", "dog"]), gallery, queries, neighbors, relevant)
    assert path == tmp_path / "plots" / "retrieval.png"
    image = Image.open(path).convert("RGB")
    right, wrong = ImageColor.getrgb(SAME_CLASS), ImageColor.getrgb(OTHER_CLASS)
    # Rows in the order of classes: the second query, of class 0, comes first.
    frames = [[pixel_of_hit(image, row, column, 1, 60) for column in range(2)] for row in range(2)]
    assert frames == [[right, wrong], [right, wrong]]
    middles = [[pixel_of_hit(image, r, c, CELL // 2, CELL // 2)[0] for c in range(2)] for r in range(2)]
    assert middles == [[102, 101], [101, 100]]
    assert pixel_of_hit(image, 0, 2, 1, 60) == (255, 255, 255)
    assert image.getpixel((MARGIN + CELL // 2, HEADER + CELL // 2)) == (201, 201, 201)


def test_several_labels_are_right_if_one_is_shared() -> None:
    labels = np.array([[1, 1, 0], [0, 0, 1], [0, 0, 0]], bool)
    neighbors = Neighbors(np.array([[0, 1, 2]]), np.zeros((1, 3), np.float32), np.array([3]))
    pictures, asked = Pictures(["a", "b", "c"]), np.array([[0, 1, 0]], bool)
    right = relevant_results(Relevance(asked, labels), neighbors.ids)
    [row] = chosen_rows(pictures, features(labels, 0), features(asked, 3), neighbors, right)
    assert [hit.relevant for hit in row.hits] == [True, False, False]
    assert [hit.label for hit in row.hits] == ["a, b", "c", "no label"]
    assert label_text(np.int64(3), None) == "class 3"


def test_hits_of_a_query_without_a_known_class_are_neither_right_nor_wrong() -> None:
    tile = Image.new("RGB", (20, 20))
    image = retrieval([Row(tile, "cat.png", [Result(tile, "dog", 3.0, None)])], title="a run", ranking="hamming")
    assert pixel_of_hit(image, 0, 0, 1, 60) == ImageColor.getrgb(GRID)
    seen = {colour for _, colour in image.getcolors(image.width * image.height) or []}
    assert not seen & {ImageColor.getrgb(SAME_CLASS), ImageColor.getrgb(OTHER_CLASS)}, "no key, no cross"


@given(st.lists(st.integers(0, 30), min_size=1, max_size=60), st.integers(1, 12))
def test_chosen_queries_are_distinct_and_spread_over_as_many_classes_as_possible(labels: list[int], count: int) -> None:
    array = np.array(labels)
    chosen = choose_queries(array, count)
    assert len(set(chosen.tolist())) == len(chosen)
    assert len(np.unique(array[chosen])) == min(count, len(np.unique(array)), len(chosen))
    assert (np.diff(array[chosen]) >= 0).all()
    np.testing.assert_array_equal(chosen, choose_queries(array, count))
    if len(np.unique(array)) <= count:
        assert len(chosen) == min(count, len(array))


def test_chosen_queries_reach_from_the_first_class_to_the_last() -> None:
    assert choose_queries(np.repeat(np.arange(100), 5), 4).tolist() == [0, 165, 330, 495]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"])
@pytest.mark.parametrize("size", [(1, 1), (8, 8), (300, 7), (7, 300), (640, 480), (128, 128)])
def test_images_of_any_mode_and_shape_fit_a_tile_undistorted(mode: str, size: tuple[int, int]) -> None:
    image = Image.new("RGB", size, "black").convert(mode)
    tile = letterboxed(image)
    assert tile.size == (TILE, TILE)
    dark = np.asarray(tile.convert("L")) < 128
    assert dark.any(1).sum() / dark.any(0).sum() == pytest.approx(size[1] / size[0], rel=0.35)
    assert max(dark.any(1).sum(), dark.any(0).sum()) == TILE


def test_what_one_can_see_through_is_white() -> None:
    assert letterboxed(Image.new("RGBA", (50, 50), (255, 0, 0, 0))).getpixel((64, 64)) == (255, 255, 255)


def test_tiny_images_keep_their_pixels() -> None:
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (8, 8), dtype=np.uint8)
    tile = np.asarray(letterboxed(Image.fromarray(pixels)))[..., 0]
    np.testing.assert_array_equal(tile, pixels.repeat(16, axis=0).repeat(16, axis=1))


def test_long_names_and_queries_without_hits_keep_the_picture_s_layout() -> None:
    picture = Image.new("RGB", (10, 10))
    hit = Result(picture, "an extremely long class name\nover two lines, " * 5, 0.123456, relevant=False)
    rows = [Row(picture, "long " * 50, [hit] * 10), Row(picture, "nothing", [])]
    image = retrieval(rows, title="a title " * 60, ranking="cosine")
    width, height = image.size
    assert width == MARGIN + CELL + QUERY_GAP + 10 * (CELL + GAP) - GAP + MARGIN
    # Nothing is drawn over the margin, nor between the pictures of neighbouring captions.
    assert np.asarray(image)[:, width - MARGIN + GAP :].min() == 255
    gap = MARGIN + CELL + QUERY_GAP + CELL + GAP - 3
    assert np.asarray(image)[HEADER:, gap : gap + 2].min() == 255
    assert retrieval([Row(picture, "nothing", [])], title="t", ranking="hamming").width >= 700
    assert height == HEADER + 2 * (CELL + CAPTION + GAP) - GAP + MARGIN
