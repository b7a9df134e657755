"""The environment of a run: versions, processors, memory, commit."""

from __future__ import annotations

import platform
import resource
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from lshbench import __version__
from lshbench.runtime.device import gpu_name

PACKAGES = {"torch": "torch", "faiss": "faiss-cpu", "numpy": "numpy", "numba": "numba", "timm": "timm"}


def environment(threads: int, device: str) -> dict[str, str | int | None]:
    """Return versions, processor, GPU, threads and, from a checkout, the commit (``+`` where files are changed).

    Args:
        threads: of every library.
        device: of networks, as configured.
    """
    return {
        "lshbench": __version__,
        "python": platform.python_version(),
        **{name: _version(package) for name, package in PACKAGES.items()},
        "platform": platform.platform(),
        "cpu": processor(),
        "gpu": gpu_name(device),
        "threads": threads,
        "git": _commit(),
    }


def peak_memory_bytes() -> int:
    """Return the largest resident set of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def processor() -> str:
    """Return the processor's name."""
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _commit() -> str | None:
    checkout = Path(__file__).resolve().parents[2]
    if not (checkout / ".git").exists():
        return None
    try:
        described = subprocess.run(
            ["git", "-C", str(checkout), "describe", "--always", "--dirty=+", "--abbrev=12"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip()
