"""Run folders from strangers: what they name outside is not touched until the user says so."""

from __future__ import annotations

import ast
import json
import os
import shutil
import socket
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from tests.command import run_code
from tests.run_damage import refit

pytestmark = pytest.mark.slow

AUDITED = """
import os, sys
from pathlib import Path

run, query, key, kernels = (Path(argument).resolve() for argument in sys.argv[1:5])
# Python, libraries and the system's own files; nothing that a run folder names.
allowed = [*map(Path, {system!r}), run, query, key, kernels, Path.cwd() / "hits.png"]
found = []

def watch(event, arguments):
    if event == "open" and isinstance(arguments[0], (str, bytes)):
        path = Path(os.path.realpath(os.fsdecode(arguments[0])))
        if not any(path.is_relative_to(place) for place in allowed):
            found.append(f"opened {{path}}")
    elif event.startswith(("socket.", "subprocess.", "os.exec", "os.posix_spawn", "os.system", "os.fork")):
        found.append(f"{{event}} {{arguments[:2]}}")
    elif event == "import" and arguments[0].partition(".")[0] in ("evil", "antigravity", "this"):
        found.append(f"imported {{arguments[0]}}")

sys.argv = ["lshbench", *sys.argv[5:]]
from lshbench.cli import main
sys.addaudithook(watch)
try:
    code = main() or 0
except SystemExit as ended:
    code = ended.code or 0
sys.stdout.flush()
print("CODE", code)
print("FOUND", found)
"""
TIMM = "lshbench.features.backbone.TimmBackbone"
SYSTEM = (
    sys.prefix, sys.base_prefix, str(Path(__file__).parents[2] / "lshbench"), str(Path(__file__).parents[2] / "conf"),
    "/proc", "/sys", "/dev", "/usr", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/localtime", "/etc/mime.types",
)  # fmt: skip


@pytest.fixture(scope="module")
def made(shared_folder: Path, shared_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two runs, of images and by hash tables whose candidates are compared by features."""
    from tests.command import run_command

    place = tmp_path_factory.mktemp("made")
    common = (
        "run", "dataset=digits", "dataset.max_gallery=60", "dataset.max_queries=12", "backbone=pixels",
        "backbone.image_size=8", "method=random_projection", "bits=16", "evaluation.plots=false",
        "evaluation.definitions=false", "reference.time=false",
    )  # fmt: skip
    environment = {**os.environ, "LSHBENCH_CACHE": str(shared_cache)}
    for name, keys in {"flat": (), "buckets": ("index=buckets", "index.tables=2")}.items():
        done = run_command([*common, *keys, f"hydra.run.dir={name}"], place, environment)
        assert done.returncode == 0, done.stderr
    return place


@pytest.fixture
def stranger(made: Path, tmp_path: Path) -> Callable[..., Path]:
    """Make a run as if it came from elsewhere, with changes, and a manifest that fits."""

    def run(name: str = "flat", change: Callable[[dict[str, Any], dict[str, Any]], object] | None = None) -> Path:
        folder = Path(shutil.copytree(made / name, tmp_path / "stranger"))
        config = yaml.safe_load((folder / "config.yaml").read_text())
        model = json.loads((folder / "model/model.json").read_text())
        if change is not None:
            change(config, model)
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        (folder / "model/model.json").write_text(json.dumps(model))
        refit(folder)
        return folder

    return run


@pytest.fixture
def audited(tmp_path: Path, shared_cache: Path) -> Callable[..., tuple[int, list[str], str]]:
    """Run a command on a run's folder under watch; returns its code, what it touched outside, and its output."""
    query = tmp_path / "query.png"
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(query)
    (tmp_path / "evil.py").write_text("open('marker', 'w')\nclass Index: pass\nclass Source: pass\n")

    def run(folder: Path, *arguments: str) -> tuple[int, list[str], str]:
        cache = shared_cache
        kernels = Path(os.environ["NUMBA_CACHE_DIR"])
        code = textwrap.dedent(AUDITED).format(system=SYSTEM)
        given = [str(folder), str(query), str(cache / "key"), str(kernels), *arguments]
        done = run_code(
            f"import sys; sys.argv = ['x', *{given!r}]\n{code}", tmp_path, {**os.environ, "LSHBENCH_CACHE": str(cache)}
        )
        *_, code_line, found_line = done.stdout.strip().splitlines()
        assert not (tmp_path / "marker").exists(), "code of a stranger's was run"
        assert "Traceback" not in done.stderr, done.stderr
        found = ast.literal_eval(found_line.removeprefix("FOUND "))
        return int(code_line.removeprefix("CODE ")), found, done.stdout + done.stderr

    return run


def search(audited: Callable, folder: Path, tmp_path: Path, *arguments: str) -> tuple[int, str]:
    """Search a folder under watch, and check that nothing outside was touched."""
    code, found, output = audited(folder, "search", str(folder), str(tmp_path / "query.png"), "-k", "3", *arguments)
    assert not found
    return code, output


def test_a_stranger_s_run_of_images_is_searched_alone(stranger, audited, tmp_path: Path) -> None:
    code, output = search(audited, stranger(), tmp_path)
    assert code == 0, output
    assert "1 query answered" in output


@pytest.mark.parametrize(
    ("group", "target"),
    [
        ("index", "evil.Index"),
        ("dataset", "evil.Source"),
        ("method", "antigravity.fly"),
        ("protocol", "lshbench.__main__.main"),
        ("backbone", "lshbench.data.digits.DigitsSource"),
        ("extra", "evil.Index"),
    ],
)
def test_classes_are_checked_before_they_are_imported(
    group: str, target: str, stranger, audited, tmp_path: Path
) -> None:
    def change(config: dict[str, Any], model: dict[str, Any]) -> None:
        for node in (config, model):
            node.setdefault(group, {})["_target_"] = target

    code, output = search(audited, stranger(change=change), tmp_path)
    assert code == 2
    assert "expected a class of lshbench" in output
    assert target in output
    assert "--trust" in output


def test_what_a_run_names_outside_is_refused_until_the_user_says_so(stranger, audited, made, tmp_path: Path) -> None:
    elsewhere = tmp_path / "cache-of-a-stranger"

    def change(config: dict[str, Any], model: dict[str, Any]) -> None:
        config["cache"] = str(elsewhere)

    folder = stranger("buckets", change)
    code, output = search(audited, folder, tmp_path)
    assert code == 2
    assert "its index compares features, of the data set digits" in output
    assert not elsewhere.exists()
    code, _, output = audited(folder, "search", str(folder), str(tmp_path / "query.png"), "--trust")
    assert code == 0, output
    assert elsewhere.exists()
    code, _, output = audited(made / "buckets", "search", str(made / "buckets"), str(tmp_path / "query.png"))
    assert code == 0, "a run that was made here needs no flag"


def test_hits_pictures_weights_and_large_networks_are_refused(stranger, audited, tmp_path: Path) -> None:
    code, output = search(audited, stranger(), tmp_path, "--picture", "hits.png")
    assert (code, "the pictures of its hits are in its data set" in output) == (2, True)
    for changed, word in (
        (
            {"_target_": "lshbench.features.backbone.TimmBackbone", "name": "resnet18.a1_in1k", "weights": "hub"},
            "weights",
        ),
        ({"_target_": "lshbench.features.backbone.TimmBackbone", "name": "hf-hub:a/b", "weights": "random"}, "weights"),
        ({"_target_": "lshbench.features.backbone.TimmBackbone", "name": "x", "weights": "/x.safetensors"}, "weights"),
        (
            {"_target_": "lshbench.features.backbone.TimmBackbone", "name": "vit_giant_patch14", "weights": "random"},
            "may take any memory",
        ),
        ({"image_size": 10**6}, "any memory"),
    ):
        shutil.rmtree(tmp_path / "stranger")

        def change(config: dict[str, Any], model: dict[str, Any], new: dict[str, Any] = changed) -> None:
            config["backbone"] = config["backbone"] | new

        code, output = search(audited, stranger(change=change), tmp_path)
        assert (code, word in output) == (2, True), output


def test_report_and_verify_touch_nothing_outside(stranger, audited, tmp_path: Path) -> None:
    def change(config: dict[str, Any], model: dict[str, Any]) -> None:
        config["dataset"]["_target_"] = "evil.Source"
        config["cache"] = str(tmp_path / "elsewhere")

    folder = stranger(change=change)
    for arguments in (["report", str(folder), "--resamples", "100"], ["verify", str(folder)]):
        code, found, output = audited(folder, *arguments)
        assert (code, found) == (0, []), output


def test_the_page_answers_its_own_names_only_and_large_images_are_refused(made: Path, tmp_path: Path) -> None:
    pytest.importorskip("gradio", reason='needs gradio: pip install -e ".[serve]"')
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code = f"""
        import http.client, threading
        from lshbench.search.page import MOST_PIXELS, build_page, serve
        from lshbench.search.searcher import Searcher

        searcher = Searcher.open({str(made / "flat")!r})
        import lshbench.search.page as page
        page.signal.signal = lambda *_: None  # not the main thread
        threading.Thread(target=serve, args=(searcher, {port}, 3, ["proxy.example"]), daemon=True).start()
        import time
        for _ in range(300):
            time.sleep(0.1)
            try:
                http.client.HTTPConnection("127.0.0.1", {port}).connect()
                break
            except OSError:
                pass
        for host in ("127.0.0.1", "localhost:{port}", "proxy.example", "evil.example", "127.0.0.1.evil.example", ""):
            connection = http.client.HTTPConnection("127.0.0.1", {port})
            connection.request("GET", "/config", headers={{"Host": host}})
            print(host, connection.getresponse().status)

        from PIL import Image
        side = int(MOST_PIXELS ** 0.5) + 1
        Image.new("L", (side, side)).save("huge.png")
        Image.new("L", (4000, 4000)).save("large.png")
        (answer, *_) = [function.fn for function in build_page(searcher, 3).fns.values()]
        resident = lambda: int(open("/proc/self/statm").read().split()[1]) * 4096
        answer("large.png", 3)
        before = resident()
        answer("large.png", 3)
        print("GROWTH", resident() - before < 50e6)
        try:
            answer("huge.png", 3)
        except Exception as error:
            print(type(error).__name__, error)
        import os, sys
        sys.stdout.flush()
        os._exit(0)
    """
    done = run_code(textwrap.dedent(code), tmp_path, dict(os.environ))
    lines = done.stdout.splitlines()
    for host, status in (("127.0.0.1", 200), (f"localhost:{port}", 200), ("proxy.example", 200)):
        assert f"{host} {status}" in lines, done.stdout + done.stderr
    for host in ("evil.example", "127.0.0.1.evil.example", ""):
        assert f"{host} 400" in lines
    assert "GROWTH True" in lines
    assert any("huge.png" in line and "pixels" in line for line in lines)
