"""The page of documentation: whole, readable without anything from elsewhere, and nothing in it unescaped."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.contracts.asyncapi import document
from service.contracts.examples import examples
from service.contracts.fields import field_table
from service.contracts.markup import Markup, anchor, element, inline, link, prose
from service.contracts.page import render_asyncapi, render_documentation, render_openapi
from service.contracts.style import STYLE, style_source

VOID = {"meta", "br", "link", "img", "input", "hr"}
ASYNCAPI = document()
SMALL: dict[str, Any] = {
    "openapi": "3.1.0",
    "info": {"title": "drover", "version": "1.0.0", "description": "Asks and answers.\n\nIn `JSON`."},
    "servers": [{"url": "http://127.0.0.1:8080", "description": "Where it listens."}],
    "security": [{"token": []}],
    "paths": {
        "/v1/generations": {
            "parameters": [{"$ref": "#/components/parameters/Trace"}],
            "get": {
                "tags": ["generations"],
                "summary": "List generations, the newest first.",
                "parameters": [
                    {
                        "name": "limit",
                        "in": "query",
                        "schema": {"type": "integer", "minimum": 1, "maximum": 200, "default": 50},
                    },
                    {
                        "name": "status",
                        "in": "query",
                        "description": "Only these.",
                        "schema": {"$ref": "#/components/schemas/Status"},
                    },
                ],
                "responses": {
                    "200": {
                        "description": "A page of them.",
                        "headers": {"Link": {"description": "The next page.", "schema": {"type": "string"}}},
                        "content": {
                            "application/json": {
                                "schema": {"type": "array", "items": {"$ref": "#/components/schemas/Node"}}
                            }
                        },
                    },
                    "401": {"$ref": "#/components/responses/Unauthorized"},
                },
            },
            "post": {
                "tags": ["generations"],
                "deprecated": True,
                "requestBody": {
                    "required": True,
                    "content": {
                        "application/json": {
                            "schema": {"oneOf": [{"$ref": "#/components/schemas/Node"}, {"type": "null"}]},
                            "examples": {
                                "one": {"summary": "One", "value": {"name": "</pre><script>alert(1)</script>"}}
                            },
                        }
                    },
                },
                "responses": {"202": {"description": "Taken."}},
                "security": [],
            },
        },
        "/healthz": {
            "get": {"responses": {"200": {"description": "Works.", "content": {"text/plain": {"example": "ok"}}}}}
        },
    },
    "components": {
        "parameters": {
            "Trace": {"name": "traceparent", "in": "header", "required": True, "schema": {"type": "string"}}
        },
        "responses": {
            "Unauthorized": {
                "description": "No token.",
                "content": {
                    "application/problem+json": {
                        "schema": {"type": "object", "properties": {"title": {"type": "string"}}}
                    }
                },
            }
        },
        "schemas": {
            "Status": {"type": "string", "enum": ["queued", "ended"]},
            "Node": {
                "type": "object",
                "properties": {"name": {"type": ["string", "null"]}, "inner": {"$ref": "#/components/schemas/Node"}},
                "required": ["name"],
                "additionalProperties": False,
            },
        },
        "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "description": "One of DROVER_API_TOKENS."}},
    },
}


class Page(HTMLParser):
    """What a browser would make of it: elements in order, ids, links, and whether every element was closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def values(self, attribute: str) -> list[str]:
        return [value for _, attributes in self.elements if (value := attributes.get(attribute)) is not None]


PAGES = {
    "asyncapi": render_asyncapi(ASYNCAPI),
    "openapi": render_openapi(SMALL),
    "both": render_documentation(ASYNCAPI, SMALL),
}


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_whole_and_its_contents_lead_into_it(name: str) -> None:
    page = Page(PAGES[name])
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    inner = {target[1:] for target in page.values("href") if target.startswith("#")}
    assert len(inner) > 3
    assert inner <= set(ids)


@pytest.mark.parametrize("name", PAGES)
def test_a_page_fetches_nothing_and_runs_nothing(name: str) -> None:
    page = Page(PAGES[name])
    assert {tag for tag, _ in page.elements} & {"script", "link", "img", "iframe", "object", "form", "base"} == set()
    assert page.values("src") == page.values("style") == []
    assert not any(attribute.startswith("on") for _, attributes in page.elements for attribute in attributes)
    assert "url(" not in STYLE
    assert "@import" not in STYLE


def test_the_policy_names_the_style_that_is_in_the_page() -> None:
    [style] = re.findall("<style>(.*?)</style>", PAGES["both"], re.DOTALL)
    assert style_source() == f"'sha256-{base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()}'"


def test_every_message_field_code_and_example_of_the_bus_is_told() -> None:
    told = "".join(Page(PAGES["asyncapi"]).text)
    for name, message in ASYNCAPI["components"]["messages"].items():
        assert message["name"] in told, name
    for schema in ASYNCAPI["components"]["schemas"].values():
        assert all(field in told for field in schema.get("properties", {}))
    for code in ASYNCAPI["components"]["schemas"]["Error"]["properties"]["code"]["x-extensible-enum"]:
        assert f'"{code}"' in told
    for example in examples().values():
        assert example.title in told
    for words in (
        "1 to 4",
        "0 to 9",
        "x-delivery-limit: 20",
        "generation.unrouted",
        "traceparent",
        "no field",
        "list of Output",
    ):
        assert words in told, words


def test_operations_parameters_bodies_and_answers_of_the_api_are_told() -> None:
    told = "".join(Page(PAGES["openapi"]).text)
    for words in (
        "get/v1/generations",
        "post/v1/generations",
        "Deprecated.",
        "limit",
        "1 to 200",
        "default 50",
        "Only these. (In the query.)",
        "traceparent",
        "(In the header.)",
        "list of Node",
        "Node or null",
        "No token.",
        "application/problem+json",
        "The next page.",
        "Body, required",
        "Taken.",
        "Needs: token",
        "http bearer",
        "One of DROVER_API_TOKENS.",
        "http://127.0.0.1:8080",
        "In JSON.",
    ):
        assert words in told, words


def test_a_definition_that_holds_itself_is_told_once() -> None:
    told = field_table({"$ref": "#/components/schemas/Node"}, SMALL)
    assert told.count("<tr>") == 3
    assert "inner.name" not in told


# -- escaping ---------------------------------------------------------------------------------------------------------

NASTY = "<script>alert(\"x\")</script><img src=x onerror='y'> `a<b>` &amp; ]]> </style>"


def spoiled(value: object, nasty: str) -> Any:  # noqa: ANN401 - a document, or a piece of one
    """Every text replaced that is not needed to find one's way; and a field with a bad name in every object."""
    if isinstance(value, dict):
        kept = ("$ref", "type", "action", "is", "in")
        made = {key: item if key in kept else spoiled(item, nasty) for key, item in value.items()}
        if isinstance(made.get("properties"), dict):
            made["properties"][nasty] = {"type": "string"}
        return made
    if isinstance(value, list):
        return [spoiled(item, nasty) for item in value]
    return nasty if isinstance(value, str) else value


@pytest.mark.parametrize("given_document", [ASYNCAPI, SMALL])
def test_no_text_of_a_document_becomes_markup(given_document: dict[str, Any]) -> None:
    render = render_asyncapi if "asyncapi" in given_document else render_openapi
    bad = spoiled(given_document, NASTY)
    bad["asyncapi" if "asyncapi" in given_document else "openapi"] = "3"
    clean, page = Page(render(given_document)), Page(render(bad))
    assert {tag for tag, _ in page.elements} <= {tag for tag, _ in clean.elements} | {"code"}
    assert not any(attribute.startswith("on") for _, attributes in page.elements for attribute in attributes)
    assert NASTY.replace("`", "") in "".join(page.text)


@settings(max_examples=200)
@given(text=st.text())
def test_any_text_comes_back_as_text(text: str) -> None:
    clean = text.replace("\r", " ").replace("\x00", " ")
    assert "".join(Page(element("p", clean, title=clean)).text) == clean
    assert Page(element("p", clean, title=clean)).values("title") == [clean]
    Page(prose(clean))
    Page(inline(clean))


def test_an_address_that_is_a_script_is_no_link() -> None:
    assert link("javascript:alert(1)", "x") == "<span>x</span>"
    assert link(None, "x") == "<span>x</span>"
    assert link("https://example.com/", "x") == '<a href="https://example.com/">x</a>'


def test_markup_stays_and_text_is_escaped() -> None:
    assert element("b", Markup("<i></i>"), "<i>", ["&", None]) == "<b><i></i>&lt;i&gt;&amp;</b>"
    assert element("details", open=True, hidden=False) == "<details open></details>"


def test_other_names_have_other_anchors() -> None:
    names = ["a", "a.b", "a-b", "a b", "a/b", "A", "_2d_", "a_2d_b"]
    assert len({anchor("x", name) for name in names}) == len(names)
