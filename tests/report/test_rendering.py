"""A page is complete, safe and exact, whatever the texts in it are."""

import base64
import hashlib
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from slotssm.plotting.charts import Line, line_chart
from slotssm.plotting.sheets import png
from slotssm.report import (
    Cell,
    Chart,
    Charts,
    Code,
    Facts,
    Key,
    Note,
    Page,
    Picture,
    Region,
    Section,
    Table,
    Track,
    Video,
    Videos,
    embed,
    render,
)

EVIL = """</script><script>alert(1)</script><img src=x onerror="alert(2)">'"&{{ 7 * 7 }}<!--"""


class Elements(HTMLParser):
    """Elements of a page with their attributes, and its visible text."""

    def __init__(self, text):
        super().__init__()
        self.found, self.text, self._stack = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        self._stack.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        while self._stack and self._stack.pop() != tag:
            pass

    def handle_data(self, data):
        if self._stack and self._stack[-1] not in ("script", "style"):
            self.text.append(data)


def video(title="episode 0", name="slot 0"):
    frames = np.random.default_rng(0).integers(0, 255, (3, 4, 6, 3), np.uint8)
    labels = (frames[..., 0] % 2).astype(np.uint8)
    return Video(
        title,
        title,
        {name: 0.1},
        [0, 1, 2],
        [Track(title, frames)],
        [Region(name, (1, 2, 3), 0)],
        labels,
        ([name], [[name]]),
    )


def page(text):
    svg = line_chart([Line((1.0, 2.0), (0.1, 0.2), (1, 2, 3))], "step")
    picture = png(np.zeros((2, 2, 3), np.uint8))
    blocks = [
        Note(text),
        Note(text, important=True),
        Facts([(text, text)]),
        Table((text, "value"), [[Cell(text, hint=text), Cell.of(0.123456789012345)]], text),
        Table((text,), [[Cell(text)]], text, folded=True),
        Charts([Chart(text, svg), Chart(text, svg, [Key(text, (1, 2, 3))])], [Key(text, (1, 2, 3))], text),
        Picture(picture, text),
        Code(text, text, text),
        Code(text, text, folded=True),
        Videos([embed(video(text, text))]),
    ]
    return Page(text, text, [(text, text)], [Section(text, blocks)], text)


@pytest.fixture(scope="module")
def evil():
    return render(page(EVIL))


def test_columns_of_numbers_stand_below_their_headings():
    rows = [[Cell("a"), Cell("–"), Cell.of(1.5)], [Cell("b"), Cell.of(2), Cell("–")], [Cell("c"), Cell("–"), Cell("–")]]
    table = Table(("name", "some", "more"), rows, "")
    found = Elements(render(Page("p", "p", [], [Section("s", [table])], "p"))).found
    assert [attrs.get("class") for tag, attrs in found if tag == "th"] == [None, "number", "number"]
    kinds = [attrs.get("class") for tag, attrs in found if tag == "td"]
    assert kinds == ["short", "none", "number", "short", "number", "none", "short", "none", "none"]


def test_texts_are_never_markup(evil):
    plain, found = Elements(render(page("plain"))).found, Elements(evil).found
    assert [tag for tag, _ in found] == [tag for tag, _ in plain], "the texts added elements"
    assert {name for _, attributes in found for name in attributes} == {
        name for _, attributes in plain for name in attributes
    }, "the texts added attributes"
    shown = "".join(Elements(evil).text)
    assert shown.count(EVIL) >= 15 and "49" not in shown


def test_only_the_script_of_the_page_may_run(evil):
    policy = next(
        a["content"] for t, a in Elements(evil).found if t == "meta" and "content" in a and "src" in a["content"]
    )
    script = re.findall(r"<script>(.*?)</script>", evil, re.S)[-1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy and "default-src 'none'" in policy


def test_nothing_is_loaded_from_elsewhere(evil):
    for tag, attributes in Elements(evil).found:
        for name in ("src", "href", "xlink:href", "srcset", "action"):
            if name in attributes:
                assert attributes[name].startswith(("data:", "#")), (tag, attributes)
    style = re.search(r"<style>(.*?)</style>", evil, re.S)[1]
    assert "@import" not in style and "url(" not in style
    assert not re.search(r"fetch\(|XMLHttpRequest|import\(|WebSocket|sendBeacon", evil)


def test_sections_with_equal_titles_have_links_of_their_own():
    titles = ["Run a", "run A", "Run a", "run-a-2", "!", "?"]
    found = Elements(render(Page("", "", [], [Section(title, []) for title in titles]))).found
    names = [attributes["id"] for tag, attributes in found if tag == "section"]
    assert len(set(names)) == len(titles)
    links = [attributes["href"] for tag, attributes in found if tag == "a"]
    assert links[-len(titles) :] == [f"#{name}" for name in names]


def test_a_number_keeps_all_its_digits(evil):
    cells = [a["data-value"] for t, a in Elements(evil).found if t == "td" and "data-value" in a]
    assert [float(cell) for cell in cells] == [0.123456789012345]
    assert "0.1235" in "".join(Elements(evil).text)


@pytest.mark.parametrize(
    ("value", "text"), [(None, "–"), (float("nan"), "–"), (292772, "292,772"), (0.87654321, "0.8765"), ("easy", "easy")]
)
def test_cells_of_values(value, text):
    assert Cell.of(value).text == text
