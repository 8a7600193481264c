"""Builds HTML. Text is escaped unless it is `Html` already."""

import html
from collections.abc import Iterable, Sequence
from typing import Any

from rattn_jax.report.style import STYLE


class Html(str):
    """Markup, as opposed to text."""


def text(value: Any) -> Html:
    """Markup that shows the value."""
    return value if isinstance(value, Html) else Html(html.escape(str(value)))


def tag(name: str, /, *children: Any, **attributes: Any) -> Html:
    """An element.

    Args:
        name: of the element.
        *children: its content; text is escaped.
        **attributes: `class_` becomes class, other underscores become hyphens; None leaves out.
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    content = "".join(map(text, children))
    if not content and name in ("img", "meta", "line", "polyline", "path", "rect", "circle"):
        return Html(f"<{name}{written}/>")
    return Html(f"<{name}{written}>{content}</{name}>")


def join(parts: Iterable[Any]) -> Html:
    """The parts, one after the other."""
    return Html("".join(map(text, parts)))


def section(title: str, *children: Any) -> Html:
    """A part of the page, with its heading."""
    name = title.lower().replace(" ", "-")
    return tag("section", tag("h2", title), *children, id=name)


def details(summary: str, *children: Any) -> Html:
    """A folded section."""
    return tag("details", tag("summary", summary), *children)


def table(header: Sequence[Any], rows: Iterable[Sequence[Any]], **attributes: Any) -> Html:
    """A table in a scrollable box; the first column names the rows."""
    body = join(
        tag("tr", tag("th", row[0], scope="row"), *(tag("td", cell) for cell in row[1:]))
        for row in rows
    )
    head = tag("tr", *(tag("th", cell, scope="col") for cell in header))
    return tag(
        "div",
        tag("table", tag("thead", head), tag("tbody", body), **attributes),
        class_="scroll",
        # So that the keyboard can scroll it, too.
        tabindex=0,
    )


def document(title: str, *children: Any, **attributes: Any) -> str:
    """A self-contained page; the attributes are those of its `main` element."""
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", title),
        tag("style", Html(STYLE)),
    )
    page = tag("html", head, tag("body", tag("main", *children, **attributes)), lang="en")
    return f"<!DOCTYPE html>\n{page}\n"
