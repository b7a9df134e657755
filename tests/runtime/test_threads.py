"""One number of threads, for libraries that are there and for those that are imported later."""

from __future__ import annotations

import subprocess
import sys

import pytest

CODE = """
import sys
{before}
from lshbench.runtime.threads import set_threads
set_threads(2)
assert set_threads(1) == 1
assert {before!r} or not {{"torch", "faiss", "numba", "scipy"}} & set(sys.modules)
import faiss, numba, torch
assert (faiss.omp_get_max_threads(), numba.get_num_threads(), torch.get_num_threads()) == (1, 1, 1)
"""


@pytest.mark.parametrize("before", ["", "import faiss, numba, torch"])
def test_every_library_takes_the_number_whenever_it_is_imported(before: str) -> None:
    subprocess.run([sys.executable, "-c", CODE.format(before=before)], check=True)
