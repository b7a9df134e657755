"""Decode images to RGB, whatever their format and mode."""

from __future__ import annotations

import io
from functools import cache

import numpy as np
from PIL import Image, ImageOps

from lshbench.data.pixels import most_pixels
from lshbench.errors import UsageError

BACKGROUND = (255, 255, 255)
"""Background of transparent images: white, as a page would show them."""

ENDS = {"JPEG": b"\xff\xd9", "PNG": b"IEND"}
"""What is near the end of a file that is not cut off."""
END_BYTES = 64

ORIENTATION = 0x0112
SIXTEEN_BITS = 65535


FORMATS = (
    "AVIF", "BMP", "DDS", "DIB", "GIF", "ICNS", "ICO", "JPEG", "JPEG2000", "MPO", "PCX", "PNG", "PPM", "PSD", "SGI",
    "TGA", "TIFF", "WEBP", "XBM", "XPM",
)  # fmt: skip
"""Formats that are read, of those that Pillow knows: none runs another program, as EPS does with Ghostscript."""

# The bound is held here, where the message can name the key, from the header and before memory is taken.
Image.MAX_IMAGE_PIXELS = None


class ImageError(UsageError):
    """An image that can't be read; the message names it."""


@cache
def _formats() -> tuple[str, ...]:
    """Return those of :data:`FORMATS` that this Pillow has."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


@cache
def known_extensions() -> frozenset[str]:
    """Return the endings of image files, such as ``.png``, of the formats that are read."""
    return frozenset(extension for extension, name in Image.registered_extensions().items() if name in _formats())


def decode(image: bytes | np.ndarray, name: str, most: int | None = None) -> Image.Image:
    """Return an image as RGB.

    Grey-scale, palette, one-bit, CMYK and YCbCr images are converted; transparent ones are laid on white; 16-bit
    and floating-point grey values are scaled to 8 bits, not clipped; the orientation that a camera noted (EXIF) is
    applied; of an animation, the first frame is taken.

    Args:
        image: an encoded file, or an array ``(h, w)``, ``(h, w, 1)``, ``(h, w, 3)`` or ``(h, w, 4)``, uint8 or
            uint16.
        name: what names the image to a person.
        most: pixels of an encoded file, where fewer than ``backbone.max_pixels`` are allowed.

    Raises:
        ImageError: it is no image, is larger, is cut off, or has pixels that have no meaning as a picture.
    """
    try:
        return _to_rgb(_from_array(image) if isinstance(image, np.ndarray) else _from_file(image, most))
    except MemoryError:
        raise
    except Exception as error:  # Decoders raise anything: OSError, SyntaxError, struct.error, IndexError, ...
        raise ImageError(f"{name}: the image can't be read ({_reason(error, image)})") from error


def early_fault(image: bytes | np.ndarray, name: str) -> ImageError | None:
    """Return the error of an image that can't be read, as far as its first and last bytes show it; else None.

    Some 50 microseconds an image: only what is suspicious is decoded.
    """
    if isinstance(image, np.ndarray):
        return None
    try:
        opened = _opened(image)
        end = ENDS.get(str(opened.format))
        if end is None or end in image[-END_BYTES:]:
            return None
    except Exception:
        pass  # decoding says why
    try:
        decode(image, name)
    except ImageError as error:
        return error
    return None


def _reason(error: Exception, image: bytes | np.ndarray) -> str:
    if isinstance(image, bytes) and not image:
        return "it is empty"
    if isinstance(error, Image.UnidentifiedImageError):
        return "no image format that is read"
    return str(error) or type(error).__name__


def _from_array(pixels: np.ndarray) -> Image.Image:
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] not in (3, 4)) or 0 in pixels.shape:
        raise ValueError(f"an array of shape {pixels.shape}; expected (h, w), (h, w, 3) or (h, w, 4)")
    if pixels.dtype == np.uint16:
        pixels = _to_bytes(pixels)
    if pixels.dtype != np.uint8:
        raise ValueError(f"an array of {pixels.dtype}; expected uint8 or uint16")
    return Image.fromarray(np.ascontiguousarray(pixels))


def _opened(content: bytes, most: int | None = None) -> Image.Image:
    """Return an image whose pixels are not decoded yet.

    Raises:
        ValueError: they are too many.
    """
    image = Image.open(io.BytesIO(content), formats=_formats())
    allowed = most_pixels() if most is None else min(most, most_pixels())
    if image.width * image.height > allowed:
        bound = f"backbone.max_pixels={allowed}" if allowed == most_pixels() else f"{allowed:,}"
        raise ValueError(f"{image.width:,} x {image.height:,} pixels, of which at most {bound} are read")
    return image


def _from_file(content: bytes, most: int | None) -> Image.Image:
    image = _opened(content, most)
    image.load()
    if "exif" not in image.info and "Raw profile type exif" not in image.info and "xmp" not in image.info:
        return image
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # A damaged note on the orientation does not spoil the picture.
        return image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        page = Image.new("RGBA", image.size, (*BACKGROUND, 255))
        return Image.alpha_composite(page, _with_alpha(image)).convert("RGB")
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_to_bytes(np.asarray(image))).convert("RGB")
    return image.convert("RGB")


def _with_alpha(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        # The transparent value is one of 65,536: lost once the grey values are scaled, so found before.
        grey = np.asarray(image)
        alpha = np.where(grey == image.info["transparency"], 0, 255).astype(np.uint8)
        scaled = Image.fromarray(_to_bytes(grey)).convert("RGB")
        scaled.putalpha(Image.fromarray(alpha))
        return scaled
    if image.mode in ("La", "RGBa"):
        image = image.convert("LA" if image.mode == "La" else "RGBA")
    return image.convert("RGBA")


def _to_bytes(grey: np.ndarray) -> np.ndarray:
    """Scale grey values to uint8: 16-bit integers by their full range, others by the values they hold."""
    if not np.isfinite(grey).all():
        raise ValueError("NaN or infinite grey values")
    low, high = float(grey.min()), float(grey.max())
    if grey.dtype.kind in "iu" and low >= 0 and high <= SIXTEEN_BITS:
        low, high = 0.0, float(SIXTEEN_BITS)
    elif low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    elif low >= 0 and high <= 255:
        low, high = 0.0, 255.0
    scale = 255 / (high - low) if high > low else 0.0
    return np.round((grey.astype(np.float64) - low) * scale).astype(np.uint8)
