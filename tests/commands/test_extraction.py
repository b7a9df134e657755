"""``lshbench extract`` as its users see it: whatever is killed, nothing is lost but the shards in hand."""

from __future__ import annotations

import io
import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from hub_server import HubServer
from PIL import Image

from lshbench.data.digits import QUERIES, DigitsSplit
from tests.command import run_code, run_command
from tests.commands.killing import (
    content,
    die,
    has_lock,
    kept,
    kill,
    notes,
    observe,
    process_of,
    processes,
    rows_noted,
    rows_written,
    wait_for,
)
from tests.data.tars import write_tar
from tests.places import may_mount

SHARD = 64
IMAGES = ("backbone.image_size=32", f"backbone.shard={SHARD}", "threads=1")
PIXELS = ("backbone=pixels", "backbone.image_size=8")
FIGURES = ("mAP", "P@10", "P@50")
LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds processes in /proc")


@pytest.mark.slow
def test_a_killed_extraction_goes_on_with_the_shards_in_hand_alone_or_beside_others(lshbench, tmp_path: Path) -> None:
    alone, killed, shared = (tmp_path / name / "cache" for name in ("alone", "killed", "shared"))

    def extract(cache: Path, prepare: Callable[[], object] = int) -> subprocess.CompletedProcess:
        return lshbench("extract", *IMAGES, env={"LSHBENCH_CACHE": str(cache)}, check=False, prepare=prepare)

    log = extract(alone).stderr
    assert "extracting 1437 of 1437 images of digits[gallery] in 23 shards: 7.4 MB" in log
    for after, noted in ((9, 9), (12, 21)):  # the second one with nine tenths done
        assert extract(killed, partial(die, after)).returncode == -signal.SIGKILL
        assert notes(killed) == noted
    log = extract(killed).stderr
    assert f"extracting {1437 - 21 * SHARD} of 1437" in log, "more than the shards in hand was done again"
    assert content(killed) == content(alone)

    with ThreadPoolExecutor() as pool:
        first, second = pool.submit(extract, shared, partial(die, 3)), pool.submit(extract, shared)
        assert first.result().returncode in (-signal.SIGKILL, 0)  # 0 where the second one was through before
        assert second.result().returncode == 0, second.result().stderr
    assert content(shared) == content(alone)


IN_TARS = (
    "dataset=webdataset", "dataset.path=digits", "dataset.label_column=cls", *PIXELS, f"backbone.shard={SHARD}",
    "backbone.batch_size=4", "threads=1",
)  # fmt: skip
AHEAD = 3 * 4
"""Images of the batches that are begun while a shard is finished."""
COMMANDS = {
    "extract": (),
    "run": ("method=pca_sign", "bits=16", "evaluation.plots=false", "reference.cosine=false"),
}
WALKED, SHARDS = 10, 29
"""What is kept of tar files: the fields of two splits, and where images lie in eight files; shards of both splits."""
NINE_TENTHS = 26


def write_digits(folder: Path) -> None:
    """Write scikit-learn's digits as tar files, with a class, facts and a caption beside each image."""
    digits = DigitsSplit()

    def members(rows: Iterable[int]) -> Iterable[tuple[str, bytes]]:
        for row in rows:
            file, label = io.BytesIO(), int(digits.labels[row])
            Image.fromarray(digits.images[row]).save(file, "png")
            yield f"{row:04}.png", file.getvalue()
            yield f"{row:04}.cls", b"%d" % label
            yield f"{row:04}.json", json.dumps({"row": row}).encode()
            yield f"{row:04}.txt", f"the digit {label}".encode()

    gallery, queries = np.split(np.arange(len(digits.labels)), [-QUERIES])
    for split, rows, files in (("train", gallery, 6), ("test", queries, 2)):
        for number, part in enumerate(np.array_split(rows, files)):
            write_tar(folder / f"{split}-{number}.tar", members(part.tolist()))


@LINUX
@pytest.mark.slow
def test_jobs_on_tar_files_killed_at_random_moments_make_what_one_does_that_nothing_happens_to(
    lshbench, tmp_path: Path
) -> None:
    write_digits(tmp_path / "digits")
    cache, generator = tmp_path / "killed", random.Random(0)

    def go_on(place: str, command: str, prepare: Callable[[], object] = int) -> subprocess.CompletedProcess:
        arguments = (command, f"output={place}-runs", *IN_TARS, *COMMANDS[command])
        return lshbench(*arguments, env={"LSHBENCH_CACHE": str(tmp_path / place)}, check=False, prepare=prepare)

    # As soon as anything is kept, so in the walk; one in each other nineteenth of the job; one with nine tenths done.
    moments = [1.0, *((WALKED + SHARDS) * (part + generator.random()) / 19 for part in range(1, 19))]
    in_walk = 0
    with ThreadPoolExecutor() as pool:
        for number, moment in enumerate(sorted([*moments, WALKED + NINE_TENTHS])):
            before, log, prepare = rows_noted(cache), tmp_path / f"log-{number}", int
            if moment == WALKED + NINE_TENTHS:
                prepare = partial(die, max(0, NINE_TENTHS - notes(cache)))
            # Near the end, an extraction could be through before it is killed.
            command = "run" if number % 2 or moment > WALKED + NINE_TENTHS else "extract"
            job = pool.submit(go_on, "killed", command, partial(observe, log, prepare))
            process = process_of(log)
            if prepare is int:
                kill(process, cache, moment)
            assert job.result().returncode == -signal.SIGKILL, job.result().stderr
            in_walk += kept(cache) < WALKED
            assert not before & rows_written(log), "what had a note was extracted again"
            assert len(rows_written(log) - rows_noted(cache)) <= SHARD + AHEAD, "more than the shard in hand was lost"
    assert in_walk > 0
    for place in ("killed", "alone"):
        done = go_on(place, "run")
        assert done.returncode == 0, done.stderr
    assert content(cache) == content(tmp_path / "alone")
    assert not list(cache.rglob(".*")), "half a file was left behind"
    one, other = (json.loads(path.read_text()) for path in tmp_path.glob("*-runs/*/pca_sign/*/metrics.json"))
    assert (one["run_id"], one["metrics"]) == (other["run_id"], other["metrics"])


def write_parquet(folder: Path) -> None:
    for name, count in (("train-00000-of-00002", 100), ("train-00001-of-00002", 100), ("test-00000-of-00001", 40)):
        files = [{"bytes": noise(row), "path": None} for row in range(count)]
        table = pa.table({"image": files, "label": np.arange(count) % 4})
        pyarrow.parquet.write_table(table, folder / f"{name}.parquet", row_group_size=20)


def write_tars(folder: Path) -> None:
    for name, count in (("train-0", 100), ("train-1", 100), ("test-0", 40)):
        members = [((f"{row:03}.png", noise(row)), (f"{row:03}.cls", b"%d" % (row % 4))) for row in range(count)]
        write_tar(folder / f"{name}.tar", [member for of_one in members for member in of_one])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("write", "stopped_at", "extracting"),
    [(write_parquet, 0.5, True), (write_tars, 0.2, False), (write_tars, 1.4, True)],
    ids=["parquet", "tars-walked", "tars"],
)
def test_a_hub_that_fails_is_stopped_and_starts_again_costs_nothing(
    lshbench, tmp_path: Path, write: Callable[[Path], None], stopped_at: float, extracting: bool
) -> None:
    # Stopped when so many times the files' bytes are sent; small images in tar files are sent twice.
    folder = tmp_path / "hub" / "owner" / "made" / "data"
    folder.mkdir(parents=True)
    write(folder)
    keys = ("dataset=hub", "dataset.stream=true", "backbone.shard=30", *PIXELS)
    plain = {name: None for name in os.environ if name.startswith("HF_")}

    def extract(cache: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
        environment = {**plain, "LSHBENCH_CACHE": str(tmp_path / cache), "HF_HOME": str(tmp_path / "hf"), **environment}
        return lshbench("extract", *keys, *arguments, env=environment)

    with ThreadPoolExecutor() as pool:
        first = HubServer(tmp_path / "hub", failures=3)
        first.silent_after = int(stopped_at * sum(path.stat().st_size for path in folder.iterdir()))
        with first.running():
            job = pool.submit(extract, "remote", "dataset.repository=owner/made", HF_ENDPOINT=first.endpoint)
            assert first.silenced.wait(120), job.result().stderr
        time.sleep(1.5)
        with HubServer(tmp_path / "hub", failures=3, port=first.server_port).running() as second:
            log = job.result().stderr
            assert second.sent > 0
    before, refused, _ = log.partition("Connection refused")
    assert refused
    assert ("images to extract" in before) == extracting
    assert "503 Service Unavailable" in before
    assert "peer closed connection" in before
    assert not [path for end in ("parquet", "tar") for path in (tmp_path / "hf").rglob(f"*.{end}")]
    extract("local", f"dataset.path={tmp_path / 'hub' / 'owner' / 'made'}")
    assert len(content(tmp_path / "local")) > 8
    assert content(tmp_path / "remote") == content(tmp_path / "local")


def noise(seed: int) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (40, 40, 3), np.uint8)
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


LAUNCHERS = {
    "joblib": ("hydra_joblib_launcher", "hydra.launcher.n_jobs={workers}"),
    "submitit_local": ("hydra_submitit_launcher", ""),
    # Ray's dashboard begins processes that take longer to start, and then to end, than the extraction.
    "ray": ("hydra_ray_launcher", "+hydra.launcher.ray.init.include_dashboard=false"),
}
"""The plugin of each launcher, and what it is told."""
SHARED = (*PIXELS, "backbone.shard=4", "threads=1")
"""Many shards: the processes that have one in hand are looked for while they have."""


def in_hand(cache: Path) -> set[int]:
    """Return the processes that have a shard of a cache in hand: they have its lock open."""
    return {int(process.name) for process in processes() if has_lock(process, cache / "features")}


def left_behind(place: Path) -> list[str]:
    """Return the command lines of processes that a command in a folder has started and that are still there."""
    found = []
    for process in processes():
        with suppress(OSError):
            if str(place).encode() in (process / "environ").read_bytes() or (process / "cwd").readlink() == place:
                found.append(f"{process.name} {(process / 'cmdline').read_bytes().decode()}")
    return found


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What one process that nothing happens to has made in the end."""
    folder = tmp_path_factory.mktemp("undisturbed")
    done = run_command(("extract", *SHARED), folder, {**os.environ, "LSHBENCH_CACHE": str(folder / "cache")})
    assert done.returncode == 0, done.stderr
    return content(folder / "cache")


@LINUX
@pytest.mark.slow
@pytest.mark.parametrize(("launcher", "workers"), [("joblib", 4), ("submitit_local", 2), ("ray", 2), ("ray", 4)])
def test_workers_of_a_launcher_share_one_extraction_though_one_is_killed(
    tmp_path: Path, undisturbed: dict[str, bytes], launcher: str, workers: int
) -> None:
    plugin, keys = LAUNCHERS[launcher]
    extra = launcher.partition("_")[0]
    pytest.importorskip(f"hydra_plugins.{plugin}", reason=f"needs the extra: pip install -e '.[{extra}]'")
    cache = tmp_path / "cache"
    # Not a fork as of the fixture's: joblib's workers outlive a forked process's end by five minutes.
    command = [
        sys.executable, "-m", "lshbench", "extract", "-m", f"worker=range({workers})", f"hydra/launcher={launcher}",
        *keys.format(workers=workers).split(), *SHARED,
    ]  # fmt: skip
    environment = {**os.environ, "LSHBENCH_CACHE": str(cache), "PYTHONPATH": os.pathsep.join(sys.path)}

    def start() -> subprocess.Popen:
        return subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )

    first = start()
    seen = wait_for(lambda: notes(cache) > 2 and in_hand(cache) - {first.pid}, 60, "no worker extracts anything")
    victim = min(seen)
    # Held until another one is at work beside it: else it could be through before that one has begun.
    os.kill(victim, signal.SIGSTOP)
    done = notes(cache)
    wait_for(lambda: notes(cache) > done and in_hand(cache) > {victim}, 60, "no other worker extracts anything")
    os.kill(victim, signal.SIGKILL)
    told = first.communicate(timeout=120)[1]
    killed = set(tmp_path.glob("outputs/**/run.log"))
    if first.returncode != 0:
        assert first.returncode == 1, told
        again = start()
        told = again.communicate(timeout=120)[1]
        assert again.returncode == 0, told
    assert f"{workers} jobs: {workers} computed" in told
    assert content(cache) == undisturbed
    assert set(tmp_path.glob("outputs/**/run.log")) == killed, "a job that was not killed left a folder"
    wait_for(lambda: not left_behind(tmp_path), 20, f"left behind: {left_behind(tmp_path)}")


@pytest.mark.slow
def test_features_written_as_parquet_open_in_datasets_and_give_the_same_figures(lshbench, tmp_path: Path) -> None:
    import datasets

    lshbench("extract", *PIXELS, "--parquet", "out")
    assert not list(tmp_path.glob("outputs/**/run.log"))
    found = datasets.load_dataset("parquet", data_dir=str(tmp_path / "out"), cache_dir=str(tmp_path / "hf"))
    assert {name: len(split) for name, split in found.items()} == {"train": 1437, "test": 360}
    first = found["train"][0]
    assert (first["id"], first["name"]) == (0, "digits[0]")
    assert len(first["features"]) == 192
    assert found["train"].features["label"].names == list("0123456789")
    run = ("method=pca_sign", "bits=16", "evaluation.plots=false")
    lshbench("run", *PIXELS, *run)
    lshbench("run", "dataset=features", "dataset.gallery=out/train.parquet", "dataset.query=out/test.parquet", *run)
    one, other = (json.loads(path.read_text()) for path in tmp_path.glob("outputs/*/pca_sign/*/metrics.json"))
    assert {name: one["metrics"][name] for name in FIGURES} == {name: other["metrics"][name] for name in FIGURES}
    assert one["reference"] == other["reference"]


def test_a_training_set_of_its_own_is_written_beside_gallery_and_queries(lshbench, tmp_path: Path) -> None:
    sizes = {"gallery": 30, "query": 6, "train": 20}
    for number, (side, size) in enumerate(sizes.items()):
        np.savez(tmp_path / f"{side}.npz", features=np.full((size, 4), number, np.float32), labels=np.arange(size) % 3)
    lshbench("extract", "--parquet", "out", "dataset=features", *(f"dataset.{side}={side}.npz" for side in sizes))
    tables = {path.stem: pyarrow.parquet.read_table(path) for path in (tmp_path / "out").iterdir()}
    assert {name: (len(table), table["features"][0].as_py()[0]) for name, table in tables.items()} == {
        "train": (30, 0), "test": (6, 1), "training_set": (20, 2),
    }  # fmt: skip


@pytest.mark.slow
def test_half_precision_on_the_disk_is_another_run_with_nearly_the_same_figures(lshbench, tmp_path: Path) -> None:
    run = ("method=pca_sign", "bits=16", "evaluation.plots=false", *PIXELS)
    for stored in ("float32", "float16"):
        lshbench("run", *run, f"backbone.stored={stored}")
    one, other = (json.loads(path.read_text()) for path in tmp_path.glob("outputs/*/pca_sign/*/metrics.json"))
    assert one["run_id"] != other["run_id"]
    assert one["metrics"]["mAP"] == pytest.approx(other["metrics"]["mAP"], abs=0.01)


@pytest.mark.slow
def test_what_can_not_be_extracted_or_written_is_refused(lshbench, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=np.eye(20, dtype=np.float32), y=np.arange(20) % 4)
    for arguments, said in (
        (("-m", "--parquet", "out"), "--parquet with -m"),
        (("--parquet",), "expected a folder"),
        (("dataset=features", "dataset.path=x.npz"), "has features already"),
    ):
        done = lshbench("extract", *arguments, check=False)
        assert done.returncode == 2, done.stderr
        assert said in done.stderr
        assert "Traceback" not in done.stderr


FULL = textwrap.dedent("""
    import os
    from pathlib import Path
    import numpy as np
    from lshbench.errors import UsageError
    from lshbench.features.filling import Made
    from lshbench.features.store import FeatureStore
    from tests.places import mount_small

    disk = Path("disk").absolute()
    mount_small({disk: 4 << 20})
    x = np.random.default_rng(0).standard_normal((100, 4096)).astype(np.float32)  # 1.6 MB
    made = []

    def fill(entry):
        def make(shards):
            for shard in shards:
                if len(made) == 5:  # somebody else fills the disk
                    with suppress(OSError), open(disk / "ballast", "wb", 0) as ballast:
                        while True:
                            ballast.write(bytes(4096))
                made.append(shard.start)
                entry.write(shard.start, x[shard.start : shard.stop])
                yield Made(shard, np.zeros(len(shard), np.uint64))
        entry.create(4096)
        entry.fill(make)

    from contextlib import suppress
    try:
        FeatureStore(disk).get_or_fill({}, 100, fill, 10)
    except UsageError as error:
        print(error)
    os.unlink(disk / "ballast")
    entry, count = FeatureStore(disk).get_or_fill({}, 100, fill, 10)
    assert np.array_equal(entry.x, x)
    print(count, made)
""")


def test_a_disk_that_fills_up_costs_the_shard_in_hand(tmp_path: Path) -> None:
    # Not asked in a decorator: it begins a process, which those that import this module for `die` may not.
    if not may_mount():
        pytest.skip("needs mounts of its own")
    (tmp_path / "disk").mkdir()
    root = Path(__file__).resolve().parents[2]
    done = run_code(f"import sys; sys.path.insert(0, {str(root)!r})\n{FULL}", tmp_path, dict(os.environ))
    assert done.returncode == 0, done.stderr
    said, counted = done.stdout.strip().split("\n")
    assert said.startswith("no space left for features in")
    assert "the same command goes on from there" in said
    assert counted == "50 [0, 10, 20, 30, 40, 50, 50, 60, 70, 80, 90]"
