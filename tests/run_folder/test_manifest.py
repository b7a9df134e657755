"""A run's manifest: damage of any kind is seen before a file is used, and names the file."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from example_run import make_run

from lshbench.commands.verify import main as verify
from lshbench.errors import UsageError
from lshbench.run_folder import Run, RunFolder, find_finished
from lshbench.run_folder.contents import finished_files
from lshbench.run_folder.items import GalleryItems, write_gallery_items
from lshbench.run_folder.manifest import Manifest
from tests.run_damage import refit

CODES = "codes/gallery.npy"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run."""
    path = tmp_path_factory.mktemp("made") / "run"
    metrics = make_run(path, gallery=60, queries=10, bits=16).metrics
    with RunFolder.claim(path) as folder:
        # `claim` removes what a run that didn't finish has left.
        folder.write_array(CODES, np.zeros((60, 2), np.uint8))
        folder.write_array("codes/gallery_labels.npy", np.arange(60) % 10)
        folder.write_yaml("config.yaml", {"dataset": {"path": "x"}})
        write_gallery_items(folder, np.arange(60), [f"item-{row}" for row in range(60)], [f"c{i}" for i in range(10)])
        folder.finish(metrics, b"k" * 32)
    return path


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """A copy of it that may be damaged."""
    return Path(shutil.copytree(made, tmp_path / "run"))


def exit_code(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        verify([str(argument) for argument in arguments])
    return int(ended.value.code or 0)


def use(path: Path) -> None:
    """Open a run and use all of its files."""
    run = Run.open(path)
    for name in run.manifest.entries if run.manifest else ():
        run.file(name)


def test_the_manifest_has_every_file_and_a_whole_run_is_whole(run: Path, capsys: pytest.CaptureFixture) -> None:
    entries = json.loads((run / "manifest.json").read_text())["files"]
    assert set(entries) == {*finished_files(run), "metrics.json"}
    use(run)
    assert GalleryItems.open(Run.open(run)).name(3) == "item-3"
    assert exit_code(run) == 0
    assert "whole" in capsys.readouterr().out
    assert exit_code(run.parent) == 0


def test_any_changed_byte_is_seen_and_the_file_is_named(run: Path, capsys: pytest.CaptureFixture) -> None:
    generator = np.random.default_rng(1)
    for name in sorted({*finished_files(run), "metrics.json", "manifest.json"}):
        content = (run / name).read_bytes()
        flipped = bytearray(content)
        flipped[generator.integers(len(content))] ^= 1 << int(generator.integers(8))
        for damaged in (bytes(flipped), content[:-1], content + b"\0", bytes(len(content)), b""):
            (run / name).write_bytes(damaged)
            if json_equal(name, content, damaged):
                continue
            with pytest.raises(UsageError, match="is damaged") as refused:
                use(run)
            assert name in str(refused.value)
            assert exit_code(run) == 2
            lines = capsys.readouterr().out.splitlines()
            assert len(lines) == 1
            assert f"{name} is damaged: " in lines[0]
        (run / name).write_bytes(content)
    use(run)


def json_equal(name: str, first: bytes, second: bytes) -> bool:
    """Return whether a manifest says the same with other blanks."""
    try:
        return name == "manifest.json" and json.loads(first) == json.loads(second)
    except ValueError:
        return False


@pytest.mark.parametrize("name", [CODES, "config.yaml", "metrics.json", "manifest.json", "index/classes.json"])
@pytest.mark.parametrize("put", ["folder", "pipe", "device", "link", "dangling", "loop", "nothing"])
def test_what_is_no_file_is_refused_at_once(name: str, put: str, run: Path) -> None:
    path = run / name
    path.unlink()
    if put == "folder":
        path.mkdir()
    elif put == "pipe":
        os.mkfifo(path)
    elif put != "nothing":
        path.symlink_to({"device": "/dev/zero", "link": "/etc/passwd", "dangling": "gone", "loop": path.name}[put])
    if (name, put) == ("manifest.json", "nothing"):
        assert Run.open(run).manifest is None, "as runs of earlier versions"
        assert exit_code(run) == 2
        return
    with pytest.raises(UsageError, match=f"{name} is damaged|holds no"):
        use(run)
    assert exit_code(run) == 2


def test_a_folder_that_is_a_link_leads_nowhere(run: Path, tmp_path: Path) -> None:
    shutil.move(run / "codes", tmp_path / "elsewhere")
    (run / "codes").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match=r"codes/gallery\S* is damaged: it is a link"):
        use(run)
    shutil.move(tmp_path / "elsewhere", run / "inside")
    (run / "codes").unlink()
    (run / "codes").symlink_to("inside")
    use(run)


def test_a_manifest_that_leads_out_of_the_folder_is_refused(run: Path) -> None:
    for name in ("../x", "/etc/passwd", "codes/../../x", "codes//gallery.npy"):
        manifest = Manifest.read(run)
        assert manifest is not None
        Manifest({**manifest.entries, name: manifest.entries[CODES]}).write(run)
        with pytest.raises(UsageError, match="names files that are no part of a run"):
            Run.open(run)
        manifest.write(run)


def test_only_who_has_the_key_can_seal_and_what_a_run_names_is_sealed(run: Path) -> None:
    assert Run.open(run).is_sealed_by(b"k" * 32)
    assert not Run.open(run).is_sealed_by(b"x" * 32)
    assert not Run.open(run).is_sealed_by(None)
    seal = Run.open(run).manifest.seal  # type: ignore[union-attr]
    (run / "config.yaml").write_text("dataset: {path: y}\n")
    refit(run)
    Manifest(Manifest.read(run).entries, seal).write(run)  # type: ignore[union-attr]
    assert not Run.open(run).is_sealed_by(b"k" * 32)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("a: &a [x,x,x,x]\nb: &b [*a,*a,*a,*a]\nc: [*b,*b,*b,*b]\n", "aliases"),
        ("- no\n- mapping\n", "no keys"),
        ("a: !!python/object/apply:os.system [touch x]\n", "could not determine a constructor"),
        ("[" * 100_000, "nesting"),
        ("a: '" + "x" * (5 << 20) + "'\n", "bytes, where at most"),
        ("a: \x00\n", "control characters"),
    ],
)
def test_hostile_yaml_is_refused(content: str, reason: str, run: Path) -> None:
    (run / "config.yaml").write_text(content)
    refit(run)
    with pytest.raises(UsageError, match=rf"config\.yaml is damaged: .*{reason}"):
        Run.open(run).config()


def test_names_that_act_on_a_terminal_are_shown_instead(run: Path) -> None:
    with_escape = "a\x1b]0;title\x07\u202e\n"
    names = ["caf\udce9" if row == 1 else with_escape for row in range(60)]
    encoded = [name.encode(errors="surrogateescape") for name in names]
    np.save(run / "index/item_names.npy", np.frombuffer(b"".join(encoded), np.uint8))
    np.save(run / "index/item_name_ends.npy", np.cumsum([len(name) for name in encoded]))
    (run / "index/classes.json").write_text(json.dumps({"class_names": [with_escape] * 10}))
    metrics = json.loads((run / "metrics.json").read_text())
    metrics["dataset"]["name"] = metrics["method"]["name"] = with_escape
    (run / "metrics.json").write_text(json.dumps(metrics))
    refit(run)
    opened = Run.open(run)
    items = GalleryItems.open(opened)
    shown = r"a\x1b]0;title\x07\u202e\x0a"
    assert [items.name(0), items.name(1)] == [shown, r"caf\xe9"]
    assert items.class_names == [shown] * 10
    assert opened.metrics.dataset.name == opened.metrics.searched == shown


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("index/items.npy", np.arange(59)),
        ("index/items.npy", np.full(60, -1)),
        ("index/items.npy", np.arange(60.0)),
        ("index/item_name_ends.npy", np.full(60, 10**9)),
        ("index/item_name_ends.npy", np.arange(60)[::-1].copy()),
        ("codes/gallery_labels.npy", np.full(60, 10)),
        ("codes/gallery_labels.npy", np.full(60, -1)),
        ("codes/gallery_labels.npy", np.zeros((60, 11), bool)),
        ("codes/gallery_labels.npy", np.zeros(60, np.int32)),
    ],
)
def test_items_that_do_not_fit_are_refused_though_the_manifest_fits(name: str, array: np.ndarray, run: Path) -> None:
    np.save(run / name, array)
    refit(run)
    with pytest.raises(UsageError, match=rf"{name} is damaged"):
        GalleryItems.open(Run.open(run))


def test_a_damaged_run_is_no_finished_one(run: Path) -> None:
    run_id = Run.open(run).metrics.run_id
    assert find_finished(run.parent, run_id) == run
    (run / CODES).unlink()
    assert find_finished(run.parent, run_id) is None
