"""Every mode that image files come in becomes the RGB picture that a viewer shows."""

from __future__ import annotations

import io
import re
import zlib

import numpy as np
import pytest
from PIL import Image

import lshbench.data.pixels as pixels_module
from lshbench.data.images import ImageError, decode, early_fault
from lshbench.data.pixels import MOST_PIXELS, limit_pixels
from lshbench.errors import UsageError

RAMP = np.linspace(0, 255, 12).round().astype(np.uint8).reshape(3, 4)


def encoded(image: Image.Image, kind: str = "PNG", **keywords: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **keywords)
    return file.getvalue()


NOISE_JPEG = encoded(
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)), "JPEG", quality=90
)


def pixels(content: bytes | np.ndarray) -> np.ndarray:
    image = decode(content, "it")
    assert image.mode == "RGB"
    return np.asarray(image)


def grey(values: np.ndarray) -> np.ndarray:
    return np.repeat(values[:, :, None], 3, axis=2)


def test_rgb_stays_as_it_is() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    assert np.array_equal(pixels(encoded(Image.fromarray(picture))), picture)


def test_grey_scale_becomes_three_equal_channels() -> None:
    assert np.array_equal(pixels(encoded(Image.fromarray(RAMP))), grey(RAMP))


def test_one_bit_images_are_black_and_white() -> None:
    bits = np.array([[True, False], [False, True]])
    assert np.array_equal(pixels(encoded(Image.fromarray(bits))), grey(np.where(bits, 255, 0).astype(np.uint8)))


def test_a_palette_is_looked_up() -> None:
    image = Image.fromarray(np.array([[0, 1], [1, 2]], np.uint8), "P")
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    expected = [[[10, 20, 30], [40, 50, 60]], [[40, 50, 60], [70, 80, 90]]]
    assert pixels(encoded(image)).tolist() == expected


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_a_palettes_transparent_colour_is_laid_on_white(kind: str) -> None:
    image = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    image.putpalette([10, 20, 30, 40, 50, 60])
    assert pixels(encoded(image, kind, transparency=1)).tolist() == [[[10, 20, 30], [255, 255, 255]]]


def test_transparent_pixels_are_laid_on_white() -> None:
    picture = np.array([[[200, 100, 0, 255], [200, 100, 0, 0], [0, 0, 0, 51]]], np.uint8)
    assert pixels(encoded(Image.fromarray(picture))).tolist() == [[[200, 100, 0], [255, 255, 255], [204, 204, 204]]]


def test_grey_with_alpha_is_laid_on_white() -> None:
    picture = np.array([[[80, 255], [80, 0]]], np.uint8)
    assert pixels(encoded(Image.fromarray(picture, "LA"))).tolist() == [[[80] * 3, [255] * 3]]


def test_a_transparent_rgb_colour_is_laid_on_white() -> None:
    picture = np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8)
    content = encoded(Image.fromarray(picture), transparency=(4, 5, 6))
    assert pixels(content).tolist() == [[[1, 2, 3], [255, 255, 255]]]


def test_cmyk_becomes_rgb() -> None:
    image = Image.fromarray(np.array([[[0, 0, 0, 0], [255, 0, 0, 0], [0, 0, 0, 255]]], np.uint8), "CMYK")
    found = pixels(encoded(image, "TIFF"))
    assert found.tolist() == [[[255, 255, 255], [0, 255, 255], [0, 0, 0]]]


def test_cmyk_jpegs_keep_their_colours() -> None:
    image = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    assert np.abs(pixels(encoded(image, "JPEG", quality=95)).astype(int) - [255, 0, 0]).max() <= 4


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_grey_is_scaled_not_clipped(kind: str) -> None:
    values = RAMP.astype(np.uint16) * 257
    assert np.array_equal(pixels(encoded(Image.fromarray(values), kind)), grey(RAMP))


def test_sixteen_bit_grey_keeps_its_brightness_when_dark() -> None:
    dark = np.full((2, 2), 4112, np.uint16)
    assert pixels(encoded(Image.fromarray(dark))).max() == 16


def test_sixteen_bit_arrays_are_scaled() -> None:
    assert np.array_equal(pixels(RAMP.astype(np.uint16) * 257), grey(RAMP))


def test_floating_point_grey_from_zero_to_one_is_scaled() -> None:
    content = encoded(Image.fromarray(RAMP.astype(np.float32) / 255), "TIFF")
    assert np.array_equal(pixels(content), grey(RAMP))


def test_32_bit_integers_beyond_16_bits_are_scaled_by_their_range() -> None:
    content = encoded(Image.fromarray(np.array([[-100_000, 0, 100_000]], np.int32)), "TIFF")
    assert pixels(content)[0, :, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_cameras_orientation_is_applied(orientation: int) -> None:
    upright = np.zeros((16, 24, 3), np.uint8)
    upright[:8, :8] = 255
    turned = {
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1],
        5: upright.transpose(1, 0, 2), 6: np.rot90(upright), 7: np.rot90(upright, 2).transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = pixels(encoded(Image.fromarray(np.ascontiguousarray(turned)), "PNG", exif=exif))
    assert np.array_equal(found, upright)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_a_damaged_orientation_does_not_spoil_the_picture() -> None:
    content = encoded(Image.fromarray(grey(RAMP)), "PNG", exif=b"Exif\x00\x00MM\x00*nonsense")
    assert np.array_equal(pixels(content), grey(RAMP))


@pytest.mark.parametrize("shape", [(3, 4), (3, 4, 1)])
def test_grey_arrays_become_rgb(shape: tuple[int, ...]) -> None:
    assert np.array_equal(pixels(RAMP.reshape(shape)), grey(RAMP))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty"),
        (b"no image at all", "no image format"),
        (encoded(Image.fromarray(grey(RAMP)))[:60], ""),
        (NOISE_JPEG[: len(NOISE_JPEG) // 2], "truncated"),
        (np.zeros((0, 4), np.uint8), "shape"),
        (np.zeros((4, 4, 5), np.uint8), "shape"),
        (np.zeros((4, 4), np.float64), "float64"),
        (encoded(Image.fromarray(np.full((2, 2), np.nan, np.float32)), "TIFF"), "NaN"),
    ],
    ids=["empty", "text", "cut PNG", "cut JPEG", "no pixels", "five channels", "float array", "NaN"],
)
def test_an_image_that_cannot_be_read_is_named(content: bytes | np.ndarray, says: str) -> None:
    with pytest.raises(ImageError, match=r"cats/07\.png.*" + says) as caught:
        decode(content, "cats/07.png")
    assert isinstance(caught.value, UsageError)


def bomb(side: int) -> bytes:
    """A PNG of a few bytes whose header says that it has this many pixels a side."""
    content = bytearray(encoded(Image.new("L", (2, 2))))
    content[16:24] = side.to_bytes(4, "big") * 2
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    return bytes(content)


@pytest.mark.parametrize("side", [14_000, 60_000])
def test_an_image_of_too_many_pixels_is_refused_by_the_key_that_allows_more(side: int) -> None:
    message = (
        f"x: the image can't be read ({side:,} x {side:,} pixels, of which at most backbone.max_pixels={MOST_PIXELS}"
    )
    with pytest.raises(ImageError, match=re.escape(message)):
        decode(bomb(side), "x")
    assert message in str(early_fault(bomb(side), "x"))


def test_the_bound_on_pixels_can_be_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixels_module, "_most", 8)
    content = encoded(Image.new("RGB", (3, 3)))
    with pytest.raises(ImageError, match=r"backbone\.max_pixels=8"):
        decode(content, "x")
    limit_pixels(9)
    assert decode(content, "x").size == (3, 3)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "WEBP"])
def test_what_is_cut_off_shows_at_once_and_what_is_whole_does_not(kind: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    content = encoded(Image.fromarray(noise), kind)
    assert early_fault(content, "x") is None
    assert early_fault(content + bytes(200), "x") is None, "what follows the end is no fault"
    if kind in ("PNG", "JPEG"):
        assert "x: the image can't be read" in str(early_fault(content[:-100], "x"))
    assert "it is empty" in str(early_fault(b"", "x"))
    assert "no image format" in str(early_fault(b"text", "x"))
