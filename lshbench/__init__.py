"""lshbench: hash codes for image retrieval, judged by labels."""

from typing import TYPE_CHECKING

__version__ = "0.1.0"
__all__ = ["__version__", "load_runs", "run"]

if TYPE_CHECKING:
    from lshbench.api import load_runs, run


def __getattr__(name: str) -> object:
    """Import the functions for Python when they are asked for: the command line needs none of them."""
    if name in ("load_runs", "run"):
        from lshbench import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
