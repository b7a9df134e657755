"""Fonts for labels of any script: one that has their letters where there is one, else their Latin transcription."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from PIL import ImageFont, features

FONTS_LOOKED_AT = 300
"""Installed fonts that are opened at most in search of letters."""
WIDE = ("noto", "cjk", "unifont", "droid", "unicode", "dejavu")
"""Words in the names of fonts that have letters of many scripts."""


@lru_cache(maxsize=1024)
def lettered(text: str, size: int, bold: bool) -> tuple[str, ImageFont.FreeTypeFont]:
    """Return a text as it can be drawn, and the font.

    Args:
        text: one line.
        size: of the font, in pixels.
        bold: whether the usual font is the bold one.
    """
    letters = frozenset(letter for letter in text if not letter.isspace())
    if not _needs_layout(letters):
        for path in (_usual_font(bold), _font_with(letters - _letters_of(_usual_font(bold)), letters)):
            if path is not None and letters <= _letters_of(path):
                return text, _opened(path, size)
    from anyascii import anyascii

    return anyascii(text), _opened(_usual_font(bold), size)


def _usual_font(bold: bool) -> Path:
    import matplotlib

    # matplotlib brings a font; what the machine has differs from one to the next.
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name


@lru_cache
def _font_with(missing: frozenset[str], letters: frozenset[str]) -> Path | None:
    """Return an installed font that has some letters; None where none is missing, or no font has them."""
    if not missing:
        return None
    return next((path for path in _installed_fonts() if letters <= _letters_of(path)), None)


def _installed_fonts() -> Iterator[Path]:
    from matplotlib.font_manager import findSystemFonts

    def narrow(path: Path) -> tuple[bool, str]:
        return not any(word in path.name.lower() for word in WIDE), str(path)

    yield from sorted(map(Path, findSystemFonts()), key=narrow)[:FONTS_LOOKED_AT]


@lru_cache(maxsize=FONTS_LOOKED_AT)
def _letters_of(path: Path) -> frozenset[str]:
    """Return the letters that a font has; none if it can't be used."""
    from matplotlib.ft2font import FT2Font

    try:
        _opened(path, 13).getlength("a")
        return frozenset(map(chr, FT2Font(str(path)).get_charmap()))
    except Exception:  # fonts of bitmaps alone, damaged ones
        return frozenset()


@lru_cache
def _opened(path: Path, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(path), size)


def _needs_layout(letters: frozenset[str]) -> bool:
    """Whether letters must be put into another order or joined, by a library that Pillow does not have here."""
    return not features.check("raqm") and any(
        unicodedata.bidirectional(letter) in ("R", "AL") or unicodedata.category(letter) in ("Mc", "Mn")
        for letter in letters
    )
