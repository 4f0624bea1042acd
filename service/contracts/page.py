"""Documentation as one HTML page, made from the documents: no script, nothing fetched, readable on its own.

Pure: `style.style_source()` is what a Content-Security-Policy must allow; all else it may forbid.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from service.contracts.bus_page import bus_part
from service.contracts.http_page import http_part
from service.contracts.markup import Markup, element, joined, link
from service.contracts.parts import Part
from service.contracts.style import STYLE

Document = Mapping[str, Any]


def render_asyncapi(document: Document) -> str:
    """A page of its own from an AsyncAPI 3.0 document."""
    return _page([bus_part(document)])


def render_openapi(document: Document) -> str:
    """A page of its own from an OpenAPI 3.1 document."""
    return _page([http_part(document)])


def render_documentation(asyncapi: Document, openapi: Document) -> str:
    """One page with both, each to be reached from the top of the contents."""
    return _page([bus_part(asyncapi), http_part(openapi)])


def _page(parts: list[Part]) -> str:
    title = " and ".join(dict.fromkeys(part.title for part in parts))
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        element("style", Markup(STYLE)),
    )
    body = element(
        "body",
        element(
            "div",
            element("nav", [_contents(part) for part in parts], aria_label="Contents"),
            element("main", [part.body for part in parts]),
            class_="frame",
        ),
    )
    return f"<!DOCTYPE html>\n{element('html', head, body, lang='en')}\n"


def _contents(part: Part) -> Markup:
    sections = (
        joined(
            (
                element("p", link(f"#{section.target}", section.title)),
                element("ul", [element("li", link(f"#{target}", text)) for target, text in section.entries]),
            )
        )
        for section in part.sections
    )
    return joined((element("p", link(f"#{part.target}", part.title), class_="part"), *sections))
