"""The parts of an HTML page: text that is always escaped, tables, figures, and the frame around them.

The page asks nothing of any network: styles, scripts and data are inside, and a content security policy forbids the
browser to fetch anything or to run any script but the two that belong to the page.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Iterable, Sequence
from importlib import resources
from typing import Any

from plotly.offline import get_plotlyjs


class Html(str):
    """Text that is markup already. All other strings are escaped wherever they enter the page."""


def text(value: object) -> Html:
    """`value` as markup that shows it literally; `Html` stays as it is."""
    return value if isinstance(value, Html) else Html(html.escape(str(value)))


def tag(name: str, *content: object, **attributes: object) -> Html:
    """An element with escaped content and attributes; `class_` is `class`, `data_x` is `data-x`."""
    pairs = [(key.rstrip("_").replace("_", "-"), value) for key, value in attributes.items() if value is not None]
    head = "".join(f' {key}="{html.escape(str(value))}"' for key, value in pairs)
    return Html(f"<{name}{head}>{join(content)}</{name}>")


def join(parts: Iterable[object], between: str = "") -> Html:
    """The parts one after the other, each escaped."""
    return Html(between.join(text(part) for part in parts))


def section(key: str, title: str, *content: object) -> Html:
    """A section with a heading and the anchor `key`; nothing where all content is empty."""
    return tag("section", tag("h2", title), *content, id=key) if any(content) else Html("")


def note(*content: object) -> Html:
    """A paragraph that explains what is beside it."""
    return tag("p", *content, class_="note")


def table(
    headers: Sequence[str], rows: Sequence[Sequence[object]], numeric: Iterable[int] = (), tall: bool = False
) -> Html:
    """A table that scrolls sideways where it is too wide, and downwards if `tall`; columns in `numeric` align right.

    A click on a heading sorts by it.
    """
    right = set(numeric)
    classes = ["number" if index in right else None for index in range(len(headers))]
    head = tag("tr", *(tag("th", name, class_=kind, scope="col") for name, kind in zip(headers, classes, strict=True)))
    body = [tag("tr", *(tag("td", cell, class_=kind) for cell, kind in zip(row, classes, strict=True))) for row in rows]
    inner = tag("table", tag("thead", head), tag("tbody", *body))
    return tag("div", inner, class_="scroll tall" if tall else "scroll")


def facts(pairs: Iterable[tuple[str, object]], class_: str = "facts") -> Html:
    """Names and values as a list."""
    return tag("dl", *(tag("div", tag("dt", name), tag("dd", value)) for name, value in pairs), class_=class_)


def pre(content: str) -> Html:
    """Text as it stands, to be copied."""
    return tag("pre", tag("code", content))


def figure(key: str, plot: Any, title: str, height: int, caption: object = "", width: int = 0) -> Html:
    """A plotly figure of `height` px that fills its column; where that is narrower than `width` px it scrolls.

    `plot` is a `plotly.graph_objects.Figure`. Its texts must have gone through `plain`.
    """
    data = plot.to_plotly_json()
    data["layout"].pop("template", None)  # the page has its own, which follows the reader's light or dark mode
    frame = tag(
        "div",
        tag("div", id=key, class_="plot", style=f"height:{height}px;min-width:{width}px", role="img", aria_label=title),
        class_="scroll",
    )
    return tag("figure", tag("h3", title), frame, _data(key, data), tag("figcaption", caption) if caption else "")


def plain(value: object) -> str:
    """`value` as text inside a plotly figure, which reads a few tags and these three entities."""
    return html.escape(str(value), quote=False)


def page(title: str, navigation: Iterable[tuple[str, str]], *content: object) -> str:
    """The whole document."""
    assets = resources.files("search.report")
    style = (assets / "page.css").read_text(encoding="utf-8")
    scripts = [
        get_plotlyjs().replace("</script", "<\\/script"),
        (assets / "page.js").read_text(encoding="utf-8"),
    ]
    hashes = " ".join(f"'sha256-{_digest(script)}'" for script in scripts)
    policy = (
        "default-src 'none'; img-src data: blob:; media-src data:; style-src 'unsafe-inline'; "
        f"script-src {hashes}; base-uri 'none'; form-action 'none'"
    )
    links = tag("nav", *(tag("a", name, href=f"#{key}") for key, name in navigation))
    return "".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n',
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n',
            '<meta name="color-scheme" content="light dark">\n',
            '<link rel="icon" href="data:,">\n',  # or the browser asks for /favicon.ico
            f"<title>{text(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n",
            links,
            tag("main", *content),
            "".join(f"\n<script>{script}</script>" for script in scripts),
            "\n</body>\n</html>\n",
        ]
    )


def _data(key: str, data: dict[str, Any]) -> Html:
    # "<" never stands in the block, so no text in it can end it or begin another.
    content = json.dumps(_jsonable(data), separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return Html(f'<script type="application/json" data-plot="{html.escape(key)}">{content}</script>')


def _jsonable(value: Any) -> Any:
    """`value` with tuples as lists and numbers that are not finite as null, which JSON has no word for."""
    if isinstance(value, dict):
        return {key: _jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_jsonable(item) for item in value]
    if isinstance(value, float):
        return round(value, 6) if value == value and abs(value) != float("inf") else None
    return value


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
