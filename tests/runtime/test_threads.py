"""One number of threads, for the libraries that are there."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from lshbench.cli import main
from lshbench.runtime.threads import let_waiting_threads_sleep

CODE = """
import sys

import pytest

from lshbench.cli import main
from lshbench.runtime.threads import available_cores, set_threads
assert set_threads(None) == available_cores()
assert not {"torch", "faiss", "numba", "scipy"} & set(sys.modules)
import faiss, numba, torch
assert set_threads(1) == 1
assert (faiss.omp_get_max_threads(), numba.get_num_threads(), torch.get_num_threads()) == (1, 1, 1)
"""

RUN = """
import hydra, sys
from lshbench.commands.run import task
from lshbench.config import conf_folder
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from lshbench.experiment import Experiment
with initialize_config_dir(str(conf_folder()), version_base="1.3"):
    config = OmegaConf.to_container(compose("config", ["method={method}", "threads=1"]), resolve=True)
Experiment.from_config(config, [])
import faiss, numba
assert numba.get_num_threads() == 1
assert "torch" not in sys.modules or sys.modules["torch"].get_num_threads() == 1
assert "{method}" != "kmeans" or faiss.omp_get_max_threads() == 1
assert "{method}" != "fourier" or "torch" in sys.modules
"""


@pytest.mark.slow
def test_libraries_that_are_loaded_take_the_number_and_no_other_is_imported() -> None:
    subprocess.run([sys.executable, "-c", CODE], check=True)


@pytest.mark.parametrize(
    "method", ["random_projection", *(pytest.param(name, marks=pytest.mark.slow) for name in ("kmeans", "fourier"))]
)
def test_a_runs_libraries_are_loaded_when_its_threads_are_set(method: str) -> None:
    subprocess.run([sys.executable, "-c", RUN.format(method=method)], check=True)


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("OMP_WAIT_POLICY", None, "PASSIVE"),
        ("OMP_WAIT_POLICY", "ACTIVE", "ACTIVE"),
        ("GOMP_SPINCOUNT", None, "30000"),
        ("GOMP_SPINCOUNT", "5", "5"),
        ("OPENBLAS_THREAD_TIMEOUT", None, "4"),
        ("OPENBLAS_THREAD_TIMEOUT", "20", "20"),
    ],
)
def test_waiting_threads_sleep_unless_the_environment_says_otherwise(
    monkeypatch: pytest.MonkeyPatch, name: str, given: str | None, expected: str
) -> None:
    for each in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OPENBLAS_THREAD_TIMEOUT"):
        monkeypatch.delenv(each, raising=False)
    if given:
        monkeypatch.setenv(name, given)
    monkeypatch.setattr("sys.argv", ["lshbench", "--version"])
    main()
    assert os.environ[name] == expected


def test_threads_spin_as_the_environments_policy_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    let_waiting_threads_sleep()
    assert "GOMP_SPINCOUNT" not in os.environ
