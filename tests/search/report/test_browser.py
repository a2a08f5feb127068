"""The report in a real browser: no error, every figure drawn, nothing asked of any network, and it fits the screen."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from search.report.report import write_report
from search.runs.run import load_run
from tests.support.synthetic import (
    add_result,
    add_scores,
    data_record,
    make_run,
    make_space,
    write_clips,
    write_record,
)

pytestmark = [pytest.mark.browser, pytest.mark.slow]

EVIL = "<img src=x onerror=window.hacked=1>'&"
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--mute-audio",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--window-size=1400,1000",
)  # fmt: skip


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Headless Chromium that keeps its console and its requests."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs the package selenium")
    programs = [shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome")]
    program, driver = next(filter(None, programs), None), shutil.which("chromedriver")
    if not program or not driver:
        pytest.skip("needs Chromium and chromedriver on the PATH")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    opened = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield opened
    opened.quit()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a run that has everything, with hostile names."""
    folder = tmp_path_factory.mktemp("browser")
    dataset = write_clips(folder / "clips", [EVIL, "b", "c"])
    run = make_run(folder / "run", labels=dataset.labels, data=data_record(dataset))
    add_scores(run, dataset, range(18), wrong=9)
    add_result(run)
    return write_report([run])


def show(browser: Any, path: Path, width: int = 1400, dark: bool = False) -> None:
    """Opens a report and waits until its figures are drawn."""
    browser.get_log("browser")
    browser.get_log("performance")
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    browser.get(path.as_uri())
    until = time.monotonic() + 60
    while not browser.execute_script("return document.documentElement.dataset.drawn"):
        assert time.monotonic() < until, f"figures are not drawn: {browser.get_log('browser')}"
        time.sleep(0.1)


def requests(browser: Any) -> list[str]:
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    return [url for url in urls if not url.startswith(("data:", "blob:", "chrome:", "about:"))]


@pytest.mark.parametrize(("width", "dark"), [(1400, False), (390, True)], ids=["wide", "phone"])
def test_figures_are_drawn_without_an_error_or_a_request(browser: Any, report: Path, width: int, dark: bool) -> None:
    show(browser, report, width, dark)
    drawn = browser.execute_script(
        "return [...document.querySelectorAll('.plot')].map(e => [e.id, e.querySelectorAll('svg.main-svg').length,"
        " e.querySelectorAll('.trace, .heatmaplayer image, .bars').length])"
    )
    assert len(drawn) >= 18
    assert [key for key, pictures, traces in drawn if not pictures or not traces] == []
    assert browser.get_log("browser") == []
    assert requests(browser) == [report.as_uri()]
    assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")


def test_hostile_names_do_nothing_in_the_browser(browser: Any, report: Path) -> None:
    show(browser, report)
    assert browser.execute_script("return window.hacked ?? null") is None
    assert EVIL in browser.execute_script("return document.querySelector('.clip').textContent")
    labels = browser.execute_script(
        "return [...document.querySelectorAll('#mistakes-confusion .ytick text')].map(e => e.textContent)"
    )
    assert EVIL in labels


def test_the_players_play_and_the_pictures_show(browser: Any, report: Path) -> None:
    show(browser, report)
    sounds = browser.execute_async_script(
        "const done = arguments[0]; const all = [...document.querySelectorAll('#mistakes audio')];"
        "Promise.all(all.map(a => new Promise(r => {"
        " a.onloadedmetadata = () => r(a.duration); a.onerror = () => r(-1); a.preload = 'auto'; a.load();"
        " }))).then(done)"
    )
    assert len(sounds) == 8
    assert all(0.4 < seconds < 1.0 for seconds in sounds)
    widths = browser.execute_script(
        "return [...document.querySelectorAll('#mistakes .clip img')].map(i => i.naturalWidth)"
    )
    assert len(widths) == 8
    assert all(widths)


def test_a_click_on_a_heading_sorts_the_trials_by_number(browser: Any, report: Path) -> None:
    show(browser, report)
    column = (
        "const t = document.querySelector('#trials table'); const h = [...t.tHead.rows[0].cells];"
        "const i = h.findIndex(c => c.textContent === 'time'); h[i].click();"
        "return [...t.tBodies[0].rows].map(r => Number(r.cells[i].querySelector('[data-value]').dataset.value))"
    )
    seconds = browser.execute_script(column)
    assert seconds == sorted(seconds)
    assert browser.execute_script(column) == sorted(seconds, reverse=True)


FIND = "const e = document.getElementById('settings-parallel');"
LINES = "e.data.filter(t => t.meta && t.meta.trial !== undefined)"


def test_a_phone_shows_the_accuracy_of_a_trial_without_scrolling_and_shades_where_columns_are_out_of_sight(
    browser: Any, report: Path
) -> None:
    show(browser, report, width=390)
    right, edge, shades = browser.execute_script(
        "const box = document.querySelector('tr[data-trial]').closest('.scroll');"
        "const heads = [...box.querySelectorAll('th')], head = heads.find(each => /accuracy/.test(each.textContent));"
        "return [head.getBoundingClientRect().right, box.getBoundingClientRect().right,"
        " getComputedStyle(box).backgroundImage.split('linear-gradient').length - 1]"
    )
    assert right <= edge + 1
    assert shades == 4  # two shades, and what covers them at the ends


def drag(browser: Any, axis: int, low: float, high: float, touch: bool = False) -> None:
    """Drags along an axis of the parallel coordinates, from `low` to `high` in the places of its lines."""
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.actions.action_builder import ActionBuilder
    from selenium.webdriver.common.actions.pointer_input import PointerInput

    x, start, end = browser.execute_script(
        FIND + "e.scrollIntoView({block: 'center', behavior: 'instant'});"
        "const s = e.querySelectorAll('.strip')[arguments[0]]; s.scrollIntoView({block: 'center', inline: 'center'});"
        "const r = s.getBoundingClientRect(); const y = e._fullLayout.yaxis;"
        "return [r.left + r.width / 2, r.top + y.d2p(arguments[1]), r.top + y.d2p(arguments[2])]",
        axis, low, high,
    )  # fmt: skip
    actions = ActionChains(browser)
    if touch:
        actions.w3c_actions = ActionBuilder(browser, mouse=PointerInput("touch", "finger"))
    pointer = actions.w3c_actions.pointer_action
    pointer.move_to_location(int(x), int(start)).pointer_down().move_to_location(int(x), int((start + end) / 2))
    pointer.move_to_location(int(x), int(end)).pointer_up()
    actions.perform()
    time.sleep(0.5)


def passing(browser: Any, axis: int, low: float, high: float) -> set[int]:
    """The trials whose line crosses an axis between two places; a pixel is a place of 0.004."""
    lines = browser.execute_script(FIND + f"return {LINES}.map(t => [t.meta.trial, t.y[arguments[0]]])", axis)
    assert not [y for _, y in lines if min(abs(y - low), abs(y - high)) < 0.006], "choose limits away from the lines"
    return {trial for trial, y in lines if low <= y <= high}


def kept(browser: Any) -> set[int]:
    lines = browser.execute_script(FIND + f"return {LINES}.map(t => [t.meta.trial, t.opacity])")
    assert all(opacity == 1 or opacity < 0.1 for _, opacity in lines)
    return {trial for trial, opacity in lines if opacity == 1}


@pytest.mark.parametrize("touch", [False, True], ids=["mouse", "finger"])
def test_a_drag_along_an_axis_keeps_the_trials_that_pass_there_and_axes_combine(
    browser: Any, report: Path, touch: bool
) -> None:
    show(browser, report, 390 if touch else 1400)
    usual = browser.execute_script(FIND + f"return {LINES}.map(t => t.opacity)")
    last = browser.execute_script(FIND + "return e.layout.meta.axes - 1")
    drag(browser, last, 0.79, 1.05, touch)
    best = passing(browser, last, 0.79, 1.05)
    assert kept(browser) == best
    assert 0 < len(best) < len(usual) / 2
    drag(browser, 3, 0.2, 0.656, touch)
    both = best & passing(browser, 3, 0.2, 0.656)
    assert kept(browser) == both
    assert 0 < len(both) < len(best)
    drag(browser, last, 0.5, 0.5, touch)  # a click takes the range of its axis away
    assert kept(browser) == passing(browser, 3, 0.2, 0.656)
    drag(browser, 3, 0.5, 0.5, touch)
    assert browser.execute_script(FIND + f"return {LINES}.map(t => t.opacity)") == usual


def test_what_is_picked_in_one_place_stands_out_in_all(browser: Any, report: Path) -> None:
    show(browser, report)
    rows = "[...document.querySelectorAll('#trials tr[data-trial]')]"
    number = browser.execute_script(f"const r = {rows}[1]; r.click(); return Number(r.dataset.trial)")
    time.sleep(0.5)
    assert kept(browser) == {number}
    assert browser.execute_script(f"return {rows}.filter(r => !r.classList.contains('faded')).length") == 1
    marks = browser.execute_script(
        "return [...document.querySelectorAll('.plot')].flatMap(e => e.data.filter(t => t.customdata)"
        ".map(t => [e.id, t.customdata.filter((n, i) => t.selectedpoints.includes(i))]))"
    )
    assert {trial for _, trials in marks for trial in trials} == {number}
    shown = {name for name, trials in marks if trials}
    assert {"progress-seconds", "progress-epochs", "time-timeline", "time-epochs"} <= shown
    assert any(name.startswith("settings-slice") for name in shown)
    assert (
        browser.execute_script("return document.querySelector('.picked span').textContent")
        == f"1 trial picked: #{number}"
    )
    browser.execute_script("document.querySelector('.picked button').click()")
    assert browser.execute_script("return document.querySelector('.picked').hidden")
    assert browser.execute_script(f"return {rows}.every(r => !r.classList.contains('faded'))")


@pytest.mark.parametrize("kind", ["empty", "interrupted", "compared"])
def test_other_kinds_of_report_have_no_error_either(browser: Any, tmp_path: Path, kind: str) -> None:
    if kind == "empty":
        write_record(tmp_path / "run", make_space(tmp_path), ["a", "b"])
        runs = [load_run(tmp_path / "run")]
    elif kind == "interrupted":
        runs = [make_run(tmp_path / "run", stop=5)]
    else:
        runs = [make_run(tmp_path / name, trials=6, seed=seed) for seed, name in enumerate(("one", "two"))]
        add_result(
            runs[0], sentence="40 test clips, on which nothing was trained or chosen; each model was scored once"
        )
    path = write_report(runs)
    show(browser, path)
    hidden = "return [...document.querySelectorAll('#compared .scroll')].some(e => e.scrollWidth > e.clientWidth)"
    assert not browser.execute_script(hidden)
    assert browser.get_log("browser") == []
    assert requests(browser) == [path.as_uri()]
