"""The page of ``lshbench search --serve``, in a browser without a screen."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--window-size=1300,1100",
)  # fmt: skip
SECONDS = 120

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("gradio") is None, reason='needs gradio: pip install -e ".[serve]"'),
    pytest.mark.skipif(importlib.util.find_spec("selenium") is None, reason='needs selenium: pip install -e ".[dev]"'),
    pytest.mark.skipif(
        shutil.which("chromium") is None or shutil.which("chromedriver") is None,
        reason="needs Chromium: apt-get install chromium chromium-driver",
    ),
]


@pytest.fixture
def page(lshbench, tmp_path: Path, shared_cache: Path) -> Iterator[str]:
    """The address of a page that serves a small run."""
    lshbench(
        "run", "dataset=digits", "dataset.max_gallery=200", "dataset.max_queries=10", "backbone=pixels",
        "backbone.image_size=8", "method=random_projection", "evaluation.plots=false", "hydra.run.dir=run",
    )  # fmt: skip
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (tmp_path / "temporary").mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "lshbench", "search", "run", "--serve", "--port", str(port), "-k", "6"],
        cwd=tmp_path,
        env={**os.environ, "LSHBENCH_CACHE": str(shared_cache), "TMPDIR": str(tmp_path / "temporary")},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        address = process.stdout.readline().split()[0]
        assert address == f"http://127.0.0.1:{port}"
        yield address
    finally:
        process.send_signal(signal.SIGINT)
        code = process.wait(SECONDS)
    assert code == 0
    assert not list((tmp_path / "temporary").glob("lshbench-serve-*")), "dropped images go with the page"


@pytest.fixture
def browser(tmp_path: Path) -> Iterator:
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for flag in (*FLAGS, f"--user-data-dir={tmp_path / 'profile'}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(shutil.which("chromedriver"))))
    yield driver
    driver.quit()


def requested(browser) -> set[str]:
    """Return the addresses of everything that the page has loaded from a network."""
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    found = {event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"}
    return {address for address in found if address.startswith(("http", "ws"))}


def test_a_dropped_image_shows_its_hits_and_nothing_leaves_the_machine(page: str, browser, tmp_path: Path) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    from lshbench.data.digits import DigitsSource
    from lshbench.runtime.progress import silent

    picture, broken = tmp_path / "digit.png", tmp_path / "broken.png"
    DigitsSource().open(tmp_path, silent).image(3).save(picture)
    broken.write_text("no image")
    wait = WebDriverWait(browser, SECONDS)
    chooser = (By.CSS_SELECTOR, "#query input[type=file]")

    browser.get(page)
    wait.until(lambda shown: shown.find_elements(*chooser))
    browser.find_element(*chooser).send_keys(str(picture))
    wait.until(lambda shown: "6 hits in" in shown.find_element(By.ID, "took").text)
    wait.until(lambda shown: len(shown.find_elements(By.CSS_SELECTOR, "#hits .thumbnail-item img")) == 6)
    assert "bits" in browser.find_element(By.ID, "hits").text
    assert "digits[" in browser.find_element(By.ID, "table").text
    browser.save_screenshot(str(tmp_path / "page.png"))
    assert all(address.startswith((page, page.replace("http", "ws"))) for address in requested(browser))

    browser.get(page)
    wait.until(lambda shown: shown.find_elements(*chooser))
    browser.find_element(*chooser).send_keys(str(broken))
    wait.until(lambda shown: shown.find_elements(By.CLASS_NAME, "toast-body"))
    assert "broken.png: the image can't be read" in browser.find_element(By.CLASS_NAME, "toast-body").text
    browser.save_screenshot(str(tmp_path / "refused.png"))
