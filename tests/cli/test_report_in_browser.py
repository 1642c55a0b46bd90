"""The page in a real browser: it loads without an error, clicks and keys change the frame, numbers are the JSON's."""

import json
import shutil
from pathlib import Path

import h5py
import pytest
from chromium import PROGRAM, Chromium

RESULTS = Path(__file__).parents[2] / "docs" / "results" / "video-prediction-cpu"
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="Chromium is not installed")


@pytest.fixture
def scored(home, tmp_path, slotssm):
    """A copy of the trained run with one set of scores; other tests score the original in other ways."""
    run = tmp_path / "a<b>&c"
    shutil.copytree(home / "runs" / "tiny-oc-001", run, ignore=shutil.ignore_patterns("eval"))
    assert slotssm("eval", run, "--json").code == 0
    return run


@pytest.fixture
def browser(tmp_path):
    found = Chromium(tmp_path / "profile")
    yield found
    found.close()


def test_the_page_of_a_run(scored, tmp_path, slotssm, browser):
    out = tmp_path / "report.html"
    made = json.loads(slotssm("report", scored, "--out", out, "--episodes", 2, "--json").out)
    browser.open(out)
    assert browser.evaluate("document.querySelector('h1').textContent") == "a<b>&c"

    # numbers are those of the stored scores, digit by digit
    stored = json.loads((scored / "eval" / "test.json").read_text())["results"]
    script = """[...document.querySelectorAll('#scores tbody tr')].map((row) => {
        const cell = row.querySelector('[data-value]');
        return [row.cells[1].textContent, cell === null ? null : Number(cell.dataset.value)]; })"""
    assert browser.evaluate(script) == [
        ["/".join(filter(None, (each["metric"], each.get("property")))), each["value"]] for each in stored
    ]

    # episodes and their scores are those that the command reports
    shown = [each["scores"]["mse"] for each in made["runs"][0]["episodes"]]
    script = """[...document.querySelectorAll('.video .scores')].map((part) => Number(
        [...part.children].find((each) => each.textContent.startsWith('mse ')).firstElementChild.dataset.value))"""
    assert browser.evaluate(script) == shown and len(shown) == 2

    video = ".video"
    browser.evaluate(f"document.querySelector('{video}').scrollIntoView()")
    browser.wait_for(f"document.querySelector('{video}').dataset.ready === 'true'")
    frame = f"document.querySelector('{video}').dataset.frame"
    output = f"document.querySelector('{video} output').textContent"
    assert browser.evaluate(frame) == "0"
    browser.click(f"{video} [aria-label='Next frame']")
    assert browser.evaluate(frame) == "1"
    browser.evaluate(f"document.querySelector('{video}').focus()")
    for key, expected in (("ArrowRight", "2"), ("ArrowLeft", "1"), ("End", "5"), ("ArrowRight", "5"), ("Home", "0")):
        browser.key(key)
        assert browser.evaluate(frame) == expected, key
    assert browser.evaluate(output) == "frame 0 of 5"

    # a hovered slot dims exactly the pixels of the others
    pixels = f"[...document.querySelectorAll('{video} .tiles canvas')].map((canvas) => canvas.toDataURL())"
    browser.hover("h1")
    browser.wait_for(f"document.querySelector('{video}').dataset.lit === ''")
    before = browser.evaluate(pixels)
    browser.hover(f"{video} .regions button:nth-child(2)")
    browser.wait_for(f"document.querySelector('{video}').dataset.lit === '1'")
    script = f"""(() => {{ const video = document.querySelector('{video}').video;
        const copy = new OffscreenCanvas(16, 16).getContext('2d', {{ willReadFrequently: true }});
        copy.drawImage(video.tiles[0], 0, 0);
        const tile = copy.getImageData(0, 0, 16, 16).data;
        const input = video.frames[0][0], owner = video.labels[0];
        return [...Array(256).keys()].every((i) => [0, 1, 2].every((c) => {{
            const value = input[4 * i + c], lit = owner[4 * i] === 1;
            return Math.abs(tile[4 * i + c] - (lit ? value : 0.16 * value + 0.84 * 70)) <= 1; }})); }})()"""
    assert browser.evaluate(script)
    browser.hover("h1")
    browser.wait_for(f"document.querySelector('{video}').dataset.lit === ''")
    assert browser.evaluate(pixels) == before
    browser.evaluate(f"document.querySelector('{video} .regions button').focus()")
    assert browser.evaluate(f"document.querySelector('{video}').dataset.lit") == "0"

    # tables sort by the exact numbers, in both directions
    values = "[...document.querySelectorAll('#scores td[data-value]')].map((cell) => Number(cell.dataset.value))"
    for expected in (sorted, lambda numbers: sorted(numbers, reverse=True)):
        browser.click("#scores th:nth-child(3) button")
        found = browser.evaluate(values)
        assert found == list(expected(found))
    assert (
        browser.evaluate("document.querySelector('#scores th:nth-child(3)').getAttribute('aria-sort')") == "descending"
    )

    # light and dark, by the system and by the button
    page = "getComputedStyle(document.body).backgroundColor"
    colors = []
    for scheme in ("light", "dark"):
        browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        colors.append(browser.evaluate(page))
    assert len(set(colors)) == 2
    browser.click("#theme")
    assert browser.evaluate(page) == colors[0], "auto, then light, although the system is dark"

    assert fits_a_telephone(browser)
    assert browser.complaints() == []


def fits_a_telephone(browser) -> bool:
    """Whether everything is shown at 360 px without scrolling sideways; tables scroll in frames of their own."""
    browser.call("Emulation.setDeviceMetricsOverride", width=360, height=740, deviceScaleFactor=2, mobile=True)
    return browser.evaluate("document.documentElement.scrollWidth") == 360


def test_the_page_of_a_reproduction(tmp_path, slotssm, browser):
    shutil.copytree(RESULTS, tmp_path / "results")
    out = tmp_path / "report.html"
    made = json.loads(slotssm("report", tmp_path / "results", "--out", out, "--json").out)
    browser.open(out)
    assert browser.evaluate("document.querySelector('h1').textContent") == "Reproduction: video-prediction, scale cpu"

    # numbers are those of result.json, digit by digit, in the order of its rows
    rows = json.loads((RESULTS / "result.json").read_text())["rows"]
    assert made["num_rows"] == len(rows)
    column = "[...document.querySelectorAll('table th')].findIndex((each) => each.textContent.trim() === 'mse')"
    script = f"""[...document.querySelector('table').querySelectorAll('tbody tr')].map((row) => {{
        const cell = row.cells[{column}].querySelector('[data-value]') ?? row.cells[{column}];
        return Number(cell.dataset.value); }})"""
    assert browser.evaluate(script) == [row["metrics"]["mse"]["mean"] for row in rows]

    # a click sorts them, and a click again turns them around
    for expected in (sorted, lambda numbers: sorted(numbers, reverse=True)):
        browser.evaluate(f"document.querySelectorAll('table th button')[{column}].click()")
        found = browser.evaluate(script)
        assert found == list(expected(found))

    # every figure is in the page, and none is broken
    figures = len(list((RESULTS / "figures").glob("*.png")))
    pictures = "[...document.images]"
    # they are loaded when they come into view
    browser.evaluate(f"{pictures}.forEach((each) => {{ each.loading = 'eager'; }})")
    browser.wait_for(f"{pictures}.every((each) => each.complete)")
    assert browser.evaluate(f"{pictures}.length") >= figures
    assert browser.evaluate(f"{pictures}.every((each) => each.naturalWidth > 0 && each.src.startsWith('data:'))")
    assert fits_a_telephone(browser)
    assert browser.complaints() == []


def test_the_page_of_a_data_set(tmp_path, slotssm, browser):
    counts = ("--train", 3, "--val", 0, "--test", 2)
    made = slotssm(
        "generate",
        "bouncing",
        "--size",
        16,
        "--frames",
        4,
        "--objects",
        2,
        "--radius",
        "2-3",
        *counts,
        "--out",
        tmp_path / "d.h5",
    )
    assert made.code == 0, made.err
    out = tmp_path / "report.html"
    assert slotssm("report", tmp_path / "d.h5", "--out", out).code == 0
    browser.open(out)
    assert browser.evaluate("document.querySelector('h1').textContent") == "d.h5"
    assert browser.evaluate("document.querySelectorAll('.video').length") == 2
    browser.evaluate("document.querySelector('.video').scrollIntoView()")
    browser.wait_for("document.querySelector('.video').dataset.ready === 'true'")
    browser.evaluate("document.querySelector('.video').focus()")
    for key, expected in (("ArrowRight", "1"), ("End", "3"), ("Home", "0")):
        browser.key(key)
        assert browser.evaluate("document.querySelector('.video').dataset.frame") == expected, key

    # the pixels on the page are those of the file
    with h5py.File(tmp_path / "d.h5") as file:
        pixels = file["test/frames"][0, 0].reshape(-1).tolist()
    script = """(() => { const frame = document.querySelector('.video').video.frames[0][0];
        return [...Array(256 * 3).keys()].map((i) => frame[4 * Math.floor(i / 3) + i % 3]); })()"""
    assert browser.evaluate(script) == pixels
    assert fits_a_telephone(browser)
    assert browser.complaints() == []
