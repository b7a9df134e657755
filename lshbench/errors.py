"""The errors a user can cause, told apart from defects by their type."""

from __future__ import annotations


class UsageError(Exception):
    """Wrong use: the message names the key, its value and what would be right; the exit code is 2.

    Raised before expensive work wherever possible.  Never carries a traceback to the user.
    """


class DivergedError(UsageError):
    """Training came to a loss that is no finite number, mostly by too large a step."""


def wrong_value(key: str, value: object, expected: str) -> UsageError:
    """Return the error for a configuration value that cannot be used.

    Args:
        key: the dotted configuration key, such as ``index.nprobe``.
        value: what was given.
        expected: what would be right, as the end of the sentence "expected ...".
    """
    return UsageError(f"{key}={value!r}: expected {expected}")
