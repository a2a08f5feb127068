"""The parts of the page: what goes in as text comes out as text."""

from __future__ import annotations

import json
import re

import plotly.graph_objects as go

from search.report.page import Html, facts, figure, page, pre, section, table, tag

EVIL = """</script><img src=x onerror="alert('1')"> & 音楽"""


def test_text_is_escaped_wherever_it_enters() -> None:
    for built in (
        tag("p", EVIL), tag("p", title=EVIL), table([EVIL], [[EVIL]]), facts([(EVIL, EVIL)]), pre(EVIL),
        section("key", EVIL, EVIL),
    ):  # fmt: skip
        assert "<img" not in built
        assert "<script" not in built
        assert 'onerror="' not in built
        assert "音楽" in built


def test_markup_goes_in_as_it_is() -> None:
    assert tag("p", Html("<b>x</b>")) == "<p><b>x</b></p>"


def test_a_figures_data_cannot_end_its_script_and_are_read_back_whole() -> None:
    built = figure("key", go.Figure(go.Scatter(x=[1, float("nan")], hovertext=[EVIL])), "title", 100)
    block = re.search(r"<script[^>]*>(.*?)</script>", built, re.DOTALL)
    assert block
    trace = json.loads(block[1])["data"][0]
    assert trace["hovertext"] == [EVIL]
    assert trace["x"] == [1, None]


def test_a_section_without_content_is_left_out() -> None:
    assert section("key", "Title", "", Html("")) == ""


def test_the_page_embeds_plotly_once_and_asks_for_nothing() -> None:
    document = page("title", [("a", "A")], tag("p", "text"))
    assert document.count("plotly.js v") == 1
    assert "default-src 'none'" in document
    assert not re.findall(r"<(?:script|link|img|iframe)[^>]+(?:src|href)=[\"'](?!data:)", document.split("<script>")[0])
    assert len(document) < 6_000_000
