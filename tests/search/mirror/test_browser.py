"""The local pages as a person sees them: `swanlab watch` in headless Chromium.

With MIRROR_SCREENSHOT=FILE.png in the environment the comparison page is kept as a picture.
"""

from __future__ import annotations

import itertools
import os
import shutil
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from search.mirror.mirror import replay
from search.mirror.mode import ResolvedMode
from search.runs.run import RunFolder
from tests.support.mirrored import epoch_result, make_run, picture, suggest, train, until

pytestmark = [pytest.mark.browser, pytest.mark.slow]

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
         "--disable-background-networking", "--disable-component-update", "--window-size=1500,1000")  # fmt: skip
ENDINGS = ("finished", "cut", "out_of_memory", "finished")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    run = make_run(tmp_path_factory.mktemp("browser") / "quick-1")
    suggest(run, kind="baseline", name="tutorial-simple", lr=1e-4)
    for lr, size in ((3.2e-4, 128), (1.1e-4, 224), (7.5e-5, 96)):
        suggest(run, lr=lr, image_size=size)
    for trial, status in zip(run.trials, ENDINGS, strict=True):
        picture(run, trial.number, epoch=4)
        train(run, trial.number, upto=4 if status == "cut" else 12)
        run.journal.ended(trial.number, status)  # type: ignore[arg-type]
    assert replay(run.path, ResolvedMode("local", "")).failed == 0
    return run


@pytest.fixture(scope="module")
def pages(run: RunFolder) -> Iterator[str]:
    """The address of `swanlab watch`, started as the header of a search says."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    swanlab = Path(sys.executable).with_name("swanlab")
    server = subprocess.Popen(
        [swanlab, "watch", run.path / "swanlog", "--port", str(port), "--host", "127.0.0.1"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        until(lambda: _answers(f"http://127.0.0.1:{port}"))
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(20)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("chromium and chromedriver are not installed")
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed: pip install .[test]")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    service = webdriver.ChromeService(executable_path=DRIVER)
    driver = webdriver.Chrome(options=options, service=service)
    yield driver
    driver.quit()


def _answers(url: str) -> bool:
    try:
        return bool(urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=5).status == 200)
    except OSError:
        return False


def text(browser: Any) -> str:
    return str(browser.find_element("tag name", "body").text)


def legend(browser: Any, chart: str) -> list[str]:
    """The names under a chart's title; the pages write "Step" below them."""
    lines = text(browser).splitlines()
    if chart not in lines:
        return []
    return list(itertools.takewhile(lambda line: line != "Step", lines[lines.index(chart) + 1 :]))


def test_the_comparison_chart_of_validation_accuracy_holds_every_trial(
    browser: Any, pages: str, run: RunFolder
) -> None:
    browser.get(f"{pages}/charts")
    until(lambda: len(legend(browser, "val/acc")) == len(run.trials))  # filled in when the curves are drawn
    assert sorted(legend(browser, "val/acc")) == [  # the page has them in the order in which it hears of them
        "000 tutorial-simple resnet18 224px lr 1e-4",
        "001 resnet18 128px lr 3.2e-4",
        "002 resnet18 224px lr 1.1e-4",
        "003 resnet18 96px lr 7.5e-5",
    ]
    assert text(browser).splitlines().count("val/acc") == 1
    if picture := os.environ.get("MIRROR_SCREENSHOT"):
        browser.save_screenshot(picture)


def test_the_table_names_outcome_kind_and_search_and_shows_values_under_their_own_names(
    browser: Any, pages: str
) -> None:
    browser.get(pages)
    until(lambda: "epoch/seconds" in text(browser) and "quick-1" in text(browser))
    lines = text(browser).splitlines()
    for heading in ("Outcome", "Kind", "Search", "1 lr", "2 mixup", "Best val acc", "lr", "backbone"):
        assert heading in lines
    shown = text(browser)
    assert "cut by ASHA at epoch 4" in shown
    assert "out of memory" in shown
    assert "Crashed" in shown
    assert "Running" not in shown
    last = epoch_result(3, 12)
    assert f"{last.val_acc:.4g}" in shown
    assert "TypeError" not in shown


def test_pictures_stand_side_by_side_and_the_log_of_an_experiment_says_how_it_went(
    browser: Any, pages: str, run: RunFolder
) -> None:
    browser.get(f"{pages}/charts")
    loaded = (
        "return [...document.images].filter(each => each.naturalWidth && each.src.startsWith('data:image/png')).length"
    )
    pictures = 2 * len(run.trials) - 1  # the trial that broke has no confusion matrix
    until(lambda: browser.execute_script(loaded) == pictures)
    browser.get(f"{pages}/experiment/2/log")
    until(lambda: "cut by ASHA at epoch 4" in text(browser))
    assert "epoch 1: val acc" in text(browser)
