"""The page of a report: what is in it, and that a browser without a network shows all of it."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from test_report import values, write_run  # noqa: F401

from lshbench.report import write_report
from lshbench.report.build import build_report
from lshbench.report.page import page_data
from lshbench.report.select import find
from lshbench.run_folder import Run
from lshbench.run_folder.thumbnails import read_thumbnails, write_thumbnails

SMALL = (
    "dataset=digits", "backbone=pixels", "backbone.image_size=8", "dataset.max_gallery=300", "dataset.max_queries=40",
)  # fmt: skip
AXE = Path(os.environ.get("AXE_CORE", "node_modules/axe-core/axe.min.js"))
"""The accessibility checker of axe-core (npm)."""


def test_the_page_holds_its_data_and_asks_for_nothing(tmp_path: Path, values) -> None:  # noqa: F811
    for seed in (0, 1):
        write_run(tmp_path / "runs", "itq", values, seed=seed)
        write_run(tmp_path / "runs", "fourier", values + 0.1, seed=seed, dataset={"name": "</script><!--"})
    file = write_report(tmp_path / "runs", tmp_path / "out")
    assert sorted(path.name for path in file.parent.iterdir()) == ["report.csv", "report.html", "report.md"]
    text = file.read_text(encoding="utf-8")
    assert len(text.encode()) < 8 << 20
    data = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)[1])
    assert data["configurations"][0]["name"].startswith("fourier 16 bits")
    assert data["configurations"][0]["means"]["mAP"][0] == pytest.approx(values.mean() + 0.1, abs=1e-4)
    shell = re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)
    assert not re.search(r'(src|href)="(?!#|data:)', shell)


def test_a_report_of_runs_imports_neither_torch_nor_faiss(tmp_path: Path, values) -> None:  # noqa: F811
    write_run(tmp_path / "runs", "itq", values)
    code = (
        "import sys; from pathlib import Path; from lshbench.report import write_report\n"
        "write_report(Path('runs'), Path('out'))\n"
        "assert not {'torch', 'faiss', 'hydra', 'pandas', 'matplotlib', 'plotly.graph_objects'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)


def test_thumbnails_come_back_as_they_were_written(tmp_path: Path, values) -> None:  # noqa: F811
    run = Run.open(write_run(tmp_path, "itq", values))
    pictures = {("query", 7): b"abc", ("gallery", 7): b"", ("gallery", 0): b"de"}
    write_thumbnails(run, pictures)
    assert read_thumbnails(run) == pictures


@pytest.mark.slow
def test_shown_queries_have_hits_right_or_wrong_and_pictures(lshbench, tmp_path: Path) -> None:
    lshbench("run", *SMALL, "method=random_projection", "bits=16", "output=runs")
    data = page_data(build_report(find([tmp_path / "runs"])))
    (one,) = data["configurations"]
    with_pictures = [query for query in one["shown"] if query["picture"]]
    assert with_pictures
    assert all(data["pictures"][hit[3]].startswith("data:image/jpeg") for hit in with_pictures[0]["hits"])
    run = find([tmp_path / "runs"]).runs[0]
    right = {query["query"]: [hit[2] for hit in query["hits"]] for query in one["shown"]}
    table = run.per_query(["query", "P@10"]).to_pydict()
    # Ties at the tenth place make P@10 an expectation; hits in order of the gallery are near it.
    for number, precision in zip(table["query"], table["P@10"], strict=True):
        if number in right and precision in (0.0, 1.0):
            assert set(right[number]) == {bool(precision)}
    assert len(one["classes"]) == len(data["groups"][0]["classes"]["names"]) == 10


@pytest.mark.slow
def test_500_runs_are_reported_in_seconds_and_a_page_of_8_mib(tmp_path: Path, values) -> None:  # noqa: F811
    for number in range(500):
        write_run(tmp_path / "runs", f"method_{number % 10}", values * (0.5 + number / 1000), seed=number // 10)
    # VmHWM is this program's own peak: ru_maxrss also counts the process that started it.
    done = subprocess.run(
        [sys.executable, "-c",
         "import re, sys, time; sys.argv[1:] = ['report', 'runs']\n"
         "from lshbench.cli import main; main()\n"
         "peak = int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])\n"
         "print('seconds', time.process_time(), 'KiB', peak)"],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    seconds, peak = map(float, done.stdout.split()[-3::2])
    assert seconds < 5
    assert peak < 1 << 20
    assert "500 finished runs" in done.stdout
    assert write_report(tmp_path / "runs", tmp_path / "out").stat().st_size < 8 << 20


@pytest.fixture
def browser(tmp_path: Path) -> Iterator:
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for flag in (
        "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync", "--window-size=1400,1000",
        "--disable-background-networking", "--disable-component-update", f"--user-data-dir={tmp_path / 'profile'}",
    ):  # fmt: skip
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(shutil.which("chromedriver"))))
    yield driver
    driver.quit()


def in_a_browser(test: Callable) -> Callable:
    """Mark a test that needs a browser."""
    for needed in (
        pytest.mark.slow,
        pytest.mark.skipif(
            importlib.util.find_spec("selenium") is None, reason='needs selenium: pip install -e ".[dev]"'
        ),
        pytest.mark.skipif(
            shutil.which("chromium") is None or shutil.which("chromedriver") is None,
            reason="needs Chromium: apt-get install chromium chromium-driver",
        ),
    ):
        test = needed(test)
    return test


@in_a_browser
@pytest.mark.skipif(not AXE.is_file(), reason="needs axe-core: npm install --no-save axe-core, or AXE_CORE=axe.min.js")
@pytest.mark.parametrize("width", [1400, 390])
def test_the_page_has_no_serious_fault_of_accessibility_and_fits_its_window(
    tmp_path: Path,
    values,  # noqa: F811
    browser,
    width: int,
) -> None:
    for seed in (0, 1):
        write_run(tmp_path / "runs", "itq", values, seed=seed)
        write_run(
            tmp_path / "runs", "a method of a very long name that no legend has room for", values + 0.1, seed=seed
        )
    size = {"width": width, "height": 1000, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(write_report(tmp_path / "runs", tmp_path / "out").as_uri())
    browser.execute_script(AXE.read_text(encoding="utf-8"))
    for scheme in ("light", "dark"):
        feature = {"name": "prefers-color-scheme", "value": scheme}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        browser.execute_script("for (const box of [...pending.keys()]) render(box)")
        found = browser.execute_async_script(
            "axe.run().then(({ passes, violations }) => arguments[0]([passes.length, violations"
            ".filter(one => ['serious', 'critical'].includes(one.impact)).map(one => [one.id, one.nodes[0].html])]))"
        )
        assert found[0] > 10, "rules that the page keeps"
        assert found[1] == []
        assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")


@in_a_browser
def test_a_browser_draws_every_plot_and_filters_at_once(lshbench, tmp_path: Path, browser) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import Select

    lshbench("run", "-m", *SMALL, "method=random_projection,pca_rotation", "bits=8,16", "output=runs")
    browser.get(write_report(tmp_path / "runs", tmp_path / "out").as_uri())
    browser.execute_script("for (const box of [...pending.keys()]) render(box)")
    charts = browser.find_elements(By.CLASS_NAME, "chart")
    assert len(charts) >= 10
    assert all(chart.find_elements(By.CLASS_NAME, "main-svg") for chart in charts)

    heads = [cell.text for cell in browser.find_elements(By.CSS_SELECTOR, "#matrices table:first-of-type thead th")]
    assert heads[:3] == ["minus", "A", "B"]
    assert browser.find_elements(By.CSS_SELECTOR, "#pair .query"), "a pair that differs is shown first"

    rows = "#figures tbody tr"
    before = len(browser.find_elements(By.CSS_SELECTOR, rows))
    box = browser.find_element(By.CSS_SELECTOR, "#filters input[value=pca_rotation]")
    box.send_keys(Keys.SPACE)
    assert "2 of 4 configurations" in browser.find_element(By.ID, "state").text
    assert len(browser.find_elements(By.CSS_SELECTOR, rows)) == before - 2
    box.send_keys(Keys.SPACE)

    for way in ("a", "b"):
        Select(browser.find_element(By.ID, "order")).select_by_value(way)
        if browser.find_elements(By.CSS_SELECTOR, "#pair .hit"):
            break
    assert browser.find_elements(By.CSS_SELECTOR, "#pair .hit.yes img, #pair .hit.no img")

    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = {event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"}
    assert not {address for address in asked if address.startswith(("http", "ws"))}
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 390, "height": 900, "deviceScaleFactor": 1, "mobile": True}
    )
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 390
