"""``lshbench search`` over real runs: the command as a user runs it, and its parts from Python."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from lshbench.commands.search import main
from lshbench.data.digits import DigitsSource
from lshbench.run_folder import Run
from lshbench.run_folder.items import GalleryItems
from lshbench.runtime.cache import cache_dir
from lshbench.runtime.own import own_key
from lshbench.runtime.progress import silent
from lshbench.search.searcher import Searcher
from tests.run_damage import refit

GALLERY, QUERIES = 300, 12  # of the runs of the digits in conftest.py


@pytest.fixture
def copy(runs: dict[str, Path], tmp_path: Path):
    """Copy a run's folder, so that a test may damage it."""

    def copied(name: str, **dataset: object) -> Path:
        folder = tmp_path / f"copy-{name}"
        shutil.copytree(runs[name], folder)
        config = yaml.safe_load((folder / "config.yaml").read_text())
        config["dataset"] = {**config["dataset"], **dataset}
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        refit(folder, own_key())
        return folder

    return copied


def item_file(item: int, folder: Path) -> Path:
    """Write the picture of an item of the digits."""
    path = folder / f"item{item}.png"
    DigitsSource().open(cache_dir(), silent).image(item).save(path)
    return path


def refusal(capsys: pytest.CaptureFixture, *arguments: object) -> str:
    """Return the message of a call that ends with exit code 2."""
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    assert ended.value.code == 2
    assert captured.out == ""
    assert "Traceback" not in captured.err
    return captured.err


def test_a_gallery_image_finds_itself_without_the_cache_or_the_data_set(lshbench, runs, tmp_path: Path) -> None:
    items = GalleryItems.open(Run.open(runs["random_projection"]))
    files = [item_file(int(items.ids[row]), tmp_path) for row in (0, 7)]
    nowhere = tmp_path / "no-cache"
    done = lshbench(
        "search", str(runs["random_projection"]), *map(str, files), "-k", "5", "--format", "json",
        env={"LSHBENCH_CACHE": str(nowhere)},
    )  # fmt: skip
    assert not nowhere.exists()
    assert done.stderr == ""
    answer = json.loads(done.stdout)
    assert (answer["ranking"], answer["gallery"], answer["k"]) == ("hamming", GALLERY, 5)
    labels = np.load(runs["random_projection"] / "codes" / "gallery_labels.npy")
    for row, query, file in zip((0, 7), answer["queries"], files, strict=True):
        assert query["query"] == str(file)
        assert query["candidates"] == GALLERY
        assert [hit["rank"] for hit in query["hits"]] == [1, 2, 3, 4, 5]
        assert query["hits"][0]["distance"] == 0
        (own,) = (hit for hit in query["hits"] if hit["row"] == row)
        assert own == {
            "rank": own["rank"], "row": row, "item": int(items.ids[row]), "name": items.name(row),
            "label": int(labels[row]), "class": str(labels[row]), "distance": 0, "tied": own["tied"],
        }  # fmt: skip
    assert 0 < answer["time_s"]["answer"] < answer["time_s"]["load"]


def test_the_table_names_rows_labels_and_times(lshbench, runs, tmp_path: Path) -> None:
    items = GalleryItems.open(Run.open(runs["random_projection"]))
    file = item_file(int(items.ids[3]), tmp_path)
    lines = lshbench(
        "search", str(runs["random_projection"] / "metrics.json"), file.name, "-k", "2"
    ).stdout.splitlines()
    assert file.name in lines
    assert any(line.split() == ["rank", "distance", "tied", "label", "row", "item", "name"] for line in lines)
    assert any(line.split()[:2] == ["1", "0"] and line.split()[-1] == items.name(3) for line in lines)
    assert lines[-1].startswith("loaded in ")
    assert "1 query answered in" in lines[-1]


@pytest.mark.parametrize("name", ["random_projection", "sq", "kmeans", "neural"])
def test_a_runs_queries_find_what_the_run_found(name: str, runs, tmp_path: Path) -> None:
    run = Run.open(runs[name])
    queries = run.per_query()["query"].to_pylist()
    ids, distances = run.neighbors()
    answers = Searcher.open(run).search([item_file(item, tmp_path) for item in queries], 10)
    assert len(answers) == QUERIES
    for answer, rows, expected, candidates in zip(
        answers, ids, distances, run.per_query()["candidates"].to_pylist(), strict=True
    ):
        found = rows[:10][rows[:10] >= 0]
        if run.metrics.ranking != "hamming":
            assert [hit.row for hit in answer.hits] == found.tolist()
            assert all(hit.tied is None for hit in answer.hits)
        else:  # ties are broken
            nearer = expected[: len(found)] < expected[len(found) - 1]
            assert set(found[nearer]) <= {hit.row for hit in answer.hits}
            assert all(hit.tied >= (expected[: len(found)] == hit.distance).sum() for hit in answer.hits)
        np.testing.assert_allclose([hit.distance for hit in answer.hits], expected[: len(found)], atol=1e-6)
        assert answer.candidates == candidates


def test_features_that_left_the_cache_are_made_again(lshbench, runs, tmp_path: Path) -> None:
    run = Run.open(runs["neural"])
    file = item_file(int(GalleryItems.open(run).ids[5]), tmp_path)
    done = lshbench(
        "search",
        str(run.path),
        str(file),
        "--trust",
        "--format",
        "json",
        env={"LSHBENCH_CACHE": str(tmp_path / "empty")},
    )
    first = json.loads(done.stdout)["queries"][0]["hits"][0]
    assert (first["row"], first["distance"]) == (5, pytest.approx(0, abs=1e-6))
    assert "were no longer in" in done.stderr


def test_a_picture_shows_the_query_and_its_hits(lshbench, runs, tmp_path: Path) -> None:
    file = item_file(4, tmp_path)
    lshbench("search", str(runs["random_projection"]), str(file), "-k", "4", "--picture", "made/hits.png")
    drawn = Image.open(tmp_path / "made" / "hits.png")
    assert drawn.width > 5 * 128


def test_a_folder_stands_for_its_images_and_npy_files_for_vectors(runs, tmp_path: Path, capsys) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    files = [item_file(item, folder) for item in (2, 1)]
    (folder / "notes.txt").write_text("no image")
    vectors = tmp_path / "vectors.npy"
    pixels = [np.asarray(Image.open(file).convert("RGB"), np.float64).ravel() / 255 for file in files]
    np.save(vectors, np.stack(pixels))
    main([str(runs["random_projection"]), str(folder), str(vectors), "-k", "3", "--format", "json"])
    found = json.loads(capsys.readouterr().out)["queries"]
    assert [query["query"] for query in found] == [
        str(files[1]), str(files[0]), f"{vectors}, row 0", f"{vectors}, row 1",
    ]  # fmt: skip
    assert found[0]["hits"] == found[3]["hits"]
    assert found[1]["hits"] == found[2]["hits"]


def test_python_users_may_give_pixels_and_content(runs) -> None:
    searcher = Searcher.open(runs["random_projection"])
    item = searcher.search_vectors(np.zeros((1, 192)), 1)[0].hits[0].item
    pixels = np.asarray(DigitsSource().open(cache_dir(), silent).image(item))
    (answer,) = searcher.search([pixels], 1)
    assert answer.query == "image 0"
    assert answer.hits[0].distance == 0
    assert searcher.image(answer.hits[0]).size == (8, 8)
    assert searcher.search([], 1) == []


def test_a_run_of_ready_features_takes_vectors_only(runs, tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(runs["features"].parent)
    np.save(tmp_path / "one.npy", np.load("features.npz")["features"][0])
    main([str(runs["features"]), str(tmp_path / "one.npy"), "--format", "json"])
    (query,) = json.loads(capsys.readouterr().out)["queries"]
    assert query["query"] == str(tmp_path / "one.npy")
    assert query["hits"][0]["class"] is None
    message = refusal(capsys, runs["features"], item_file(0, tmp_path))
    assert "run of ready features (features)" in message
    assert ".npy files of vectors of 8 numbers" in message


def test_a_run_without_its_items_names_is_no_whole_run(copy, tmp_path: Path, capsys) -> None:
    folder = copy("random_projection")
    (folder / "index" / "items.npy").unlink()
    assert "holds no index/items.npy" in refusal(capsys, folder, item_file(0, tmp_path))


def test_a_relative_path_to_data_starts_from_the_folder_that_the_run_was_made_in(lshbench, runs, tmp_path) -> None:
    np.save(tmp_path / "one.npy", np.load(runs["compared"].parent / "features.npz")["features"][0])
    done = lshbench("search", str(runs["compared"]), "one.npy", "-k", "1", "--format", "json")
    (query,) = json.loads(done.stdout)["queries"]
    assert query["hits"][0]["distance"] == pytest.approx(0, abs=1e-6)
    assert not (tmp_path / "own").exists(), "its cache is beside the data"


def test_a_relative_path_that_leads_nowhere_is_named_with_the_places_it_was_looked_for_in(
    copy, runs, tmp_path: Path, capsys, monkeypatch
) -> None:
    np.save(tmp_path / "one.npy", np.zeros(8))
    monkeypatch.chdir(tmp_path)
    place = runs["compared"].parent
    folder = copy("compared", path="gone.npz")
    message = refusal(capsys, folder, "one.npy")
    assert "dataset.path='gone.npz'" in message
    assert f"seen from {tmp_path}" in message
    assert f"nor from {place}, where the run was made: expected the data there" in message
    # Beside the current folder's own data it is found, and Hydra's record is not needed for any of it.
    shutil.copy(place / "features.npz", "gone.npz")
    main([str(folder), "one.npy"])
    assert "1 query answered" in capsys.readouterr().out
    shutil.rmtree(folder / ".hydra")
    main([str(folder), "one.npy"])
    (tmp_path / "gone.npz").unlink()
    capsys.readouterr()
    assert f"nor from {place}" in refusal(capsys, folder, "one.npy")


def test_without_its_data_set_a_run_is_searched_but_has_no_pictures(copy, tmp_path: Path, capsys) -> None:
    folder = copy("random_projection", _target_="lshbench.data.folder.FolderSource", path="/gone")
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["dataset"] = {key: config["dataset"][key] for key in ("name", "_target_", "path")}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    refit(folder, own_key())
    main([str(folder), str(item_file(0, tmp_path))])
    assert "digits[" in capsys.readouterr().out
    message = refusal(capsys, folder, item_file(0, tmp_path), "--picture", "p.png")
    assert "data set, digits, can't be opened again" in message
    assert "/gone" in message


def test_a_data_set_that_has_changed_is_noticed(copy, tmp_path: Path, capsys) -> None:
    file = item_file(0, tmp_path)
    changed = copy("random_projection", split_seed=1)
    assert "no longer those of the run" in refusal(capsys, changed, file, "--picture", "p.png")
    assert "has changed since the run" in refusal(capsys, copy("neural", split_seed=1), file)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["RUN"], ["no IMAGE", "--serve"]),
        (["RUN", "IMAGE", "-k", "0"], ["k=0", "at least 1"]),
        (["RUN", "IMAGE", "-k", "301"], ["k=301", "at most 300"]),
        (["RUN", "gone.png"], ["gone.png", "not there"]),
        (["RUN", "IMAGE", "broken.png"], ["broken.png", "can't be read"]),
        (["RUN", "empty"], ["empty", "image files directly in it"]),
        (["RUN", "narrow.npy"], ["(1, 5)", "(n, 192)"]),
        (["RUN", "infinite.npy"], ["NaN or infinite", "row 1"]),
        (["RUN", "objects.npy"], ["objects.npy", "pickle"]),
        (["RUN", "IMAGE", "--picture", "hits.jpg"], ["hits.jpg", ".png"]),
        (["RUN", "IMAGE", "--picture", "hits.png", "-k", "51"], ["k=51", "at most 50 with --picture"]),
        (["RUN", "narrow.npy", "--picture", "hits.png"], ["--picture", "no picture"]),
        (["RUN", "IMAGE", "--picture", "narrow.npy/hits.png"], ["--picture", "narrow.npy is no folder"]),
        (["RUN", "IMAGE", "--pictre", "hits.png"], ["--pictre: no such flag; did you mean --picture?"]),
        (["RUN", "IMAGE", "--serve"], ["--serve takes no IMAGE"]),
        (["RUN", "IMAGE", "--format", "xml"], ["--format", "json"]),
        (["RUN", "IMAGE", "--device", "cuda:99"], ["device='cuda:99'"]),
        (["gone", "IMAGE"], ["gone", "is no folder", "expected the folder of a run"]),
        (["empty", "IMAGE"], ["empty", "no finished run", "metrics.json"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_wrong_use_gets_one_message(arguments, words, runs, tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.png").write_text("no image")
    np.save("narrow.npy", np.zeros(5))
    np.save("infinite.npy", np.stack([np.zeros(192), np.full(192, np.nan)]))
    np.save("objects.npy", np.array([{}]))
    given = {"RUN": runs["random_projection"], "IMAGE": item_file(0, tmp_path)}
    message = refusal(capsys, *(given.get(argument, argument) for argument in arguments))
    for word in words:
        assert word in message


def test_damaged_files_are_named(copy, tmp_path: Path, capsys) -> None:
    folder, file = copy("neural"), item_file(0, tmp_path)
    stored = folder / "model" / "method.safetensors"
    stored.write_bytes(stored.read_bytes()[:100])
    assert "method.safetensors is damaged" in refusal(capsys, folder, file)
    stored.unlink()
    assert "holds no model/method.safetensors" in refusal(capsys, folder, file)
    shutil.rmtree(folder)
    folder = copy("random_projection")
    (folder / "index" / "words.npy").write_bytes(b"")
    assert f"{folder / 'index' / 'words.npy'} is damaged" in refusal(capsys, folder, file)


def test_a_page_without_gradio_names_the_extra(runs, capsys, monkeypatch) -> None:
    import lshbench.search.page

    monkeypatch.setattr(lshbench.search.page.importlib.util, "find_spec", lambda name: None)
    assert 'pip install -e ".[serve]"' in refusal(capsys, runs["random_projection"], "--serve")
