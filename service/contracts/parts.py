"""What both halves of the page are made of: a part with its sections, each with entries in the contents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from service.contracts.markup import Child, Markup, element, joined, json_block, link, prose


@dataclass(frozen=True, slots=True)
class Section:
    """A chapter: `entries` are (id, text) of what can be gone to in it."""

    target: str
    title: str
    body: Markup
    entries: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Part:
    """One document, rendered."""

    target: str
    title: str
    body: Markup
    sections: tuple[Section, ...]


def part(target: str, title: str, info: Mapping[str, Any], sections: list[Section]) -> Part:
    """The document's head, and its sections one after another; empty ones are left out."""
    told = [section for section in sections if section.body]
    version = element("p", f"version {info.get('version', '?')}", _licence(info), class_="meta")
    head = [element("h1", title, id=target), version, prose(info.get("description"))]
    body = [[element("h2", section.title, id=section.target), section.body] for section in told]
    return Part(target, title, joined([*head, *body]), tuple(told))


def _licence(info: Mapping[str, Any]) -> Child:
    licence = info.get("license")
    if not isinstance(licence, Mapping):
        return None
    return [", licence ", link(licence.get("url"), str(licence.get("name", "")))]


def folded(summary: Child, *body: Child, unfolded: bool = False) -> Markup:
    """What is shown on demand."""
    return element("details", element("summary", summary), body, open=unfolded)


def example(title: str, value: object, *, unfolded: bool = False) -> Markup:
    """One example, on demand."""
    return folded(["Example: ", title], json_block(value), unfolded=unfolded)
