"""The templates: what goes in as text comes out as text, and the page asks for nothing."""

from __future__ import annotations

import json
import re
from typing import Any

import plotly.graph_objects as go
import pytest
from jinja2 import UndefinedError
from markupsafe import Markup

from search.report.figures import Plot
from search.report.report import Cell, Table, environment, page

EVIL = """</script><img src=x onerror="alert('1')"> & 音楽"""


def part(call: str, **values: Any) -> str:
    """What a piece of parts.html makes of values."""
    source = f"{{% import 'parts.html' as parts %}}{{{{ parts.{call} }}}}"
    return environment().from_string(source).render(**values)


@pytest.mark.parametrize(
    ("call", "values"),
    [
        ("table(it)", {"it": Table([EVIL], [[EVIL]])}),
        ("table(it)", {"it": Table(["a"], [[Cell(EVIL, 1.0)], [Cell(EVIL, wrap=True)], [Cell(EVIL, strong=True)]])}),
        ("facts(it)", {"it": [(EVIL, EVIL)]}),
        ("pre(it)", {"it": EVIL}),
        ("folded(it, it)", {"it": EVIL}),
        ("figure(it)", {"it": Plot(EVIL, go.Figure(), EVIL, 100, EVIL)}),
    ],
)
def test_text_is_escaped_wherever_it_enters(call: str, values: dict[str, Any]) -> None:
    built = part(call, **values)
    assert "<img" not in built
    assert "</script><" not in built
    assert 'onerror="' not in built
    assert "音楽" in built


def test_only_what_the_program_calls_markup_goes_in_as_it_is() -> None:
    assert "<b>x</b>" in part("pre(it)", it=Markup("<b>x</b>"))


def test_a_figures_data_cannot_end_its_script_and_are_read_back_whole() -> None:
    plot = Plot("key", go.Figure(go.Scatter(x=[1, float("nan")], hovertext=[EVIL])), "title", 100)
    block = re.search(r"<script[^>]*>(.*?)</script>", part("figure(it)", it=plot), re.DOTALL)
    assert block
    trace = json.loads(block[1])["data"][0]
    assert trace["hovertext"] == [EVIL]
    assert trace["x"] == [1, None]


def test_a_template_that_is_given_too_little_says_so() -> None:
    with pytest.raises(UndefinedError):
        environment().get_template("sections/best.html").render(it={})


def test_the_page_embeds_plotly_once_and_asks_for_nothing() -> None:
    document = page(title=EVIL, anchors=[("a", EVIL)], comparison=None, articles=[])
    assert document.count("plotly.js v") == 1
    assert "default-src 'none'" in document
    assert "<img" not in document.split("<script>")[0]
    assert not re.findall(r"<(?:script|link|img|iframe)[^>]+(?:src|href)=[\"'](?!data:)", document.split("<script>")[0])
    assert len(document) < 6_000_000
