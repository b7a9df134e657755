"""Text from files and names, as it can be shown: nothing in it acts on a terminal or hides what stands there."""

from __future__ import annotations

import re

_ACTING = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters (a terminal's commands begin with one), marks that turn the direction of writing, and halves of
characters, as which Python keeps bytes of file names that are no text."""


def visible(text: str, keep: str = "") -> str:
    r"""Return text without characters that act: each is shown by its number, such as ``\x1b`` or ``\u202e``.

    Args:
        text: from outside, such as a file's name.
        keep: characters that stay as they are, such as a line's end.
    """
    return _ACTING.sub(lambda found: found[0] if found[0] in keep else _number(ord(found[0])), text)


def _number(code: int) -> str:
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is no text, as `surrogateescape` keeps it
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
