"""HTML that cannot be written unescaped: text is text unless it is Markup, and only this module makes Markup."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable

VOID = {"meta", "br", "link"}
CODE = re.compile(r"`([^`]+)`")
WEB = re.compile(r"https?://\S+")


class Markup(str):
    """HTML that is safe as it stands."""

    __slots__ = ()


Child = str | Markup | Iterable["Child"] | None


def element(name: str, /, *children: Child, **attributes: str | bool | None) -> Markup:
    """One element. Children that are no Markup are escaped, as attributes are; `class_` is `class`, None left out."""
    told = "".join(_attribute(key, value) for key, value in attributes.items())
    if name in VOID:
        return Markup(f"<{name}{told}>")
    return Markup(f"<{name}{told}>{joined(children)}</{name}>")


def joined(children: Iterable[Child]) -> Markup:
    """Several in a row."""
    return Markup("".join(_safe(child) for child in children))


def _safe(child: Child) -> str:
    if child is None:
        return ""
    if isinstance(child, Markup):
        return child
    if isinstance(child, str):
        return html.escape(child)
    return joined(child)


def _attribute(key: str, value: str | bool | None) -> str:  # noqa: FBT001 - HTML's own
    name = key.rstrip("_").replace("_", "-")
    if value is None or value is False:
        return ""
    return f" {name}" if value is True else f' {name}="{html.escape(value)}"'


def prose(text: object) -> Markup:
    """Paragraphs, apart by empty lines; `code` in backticks. What else Markdown has stays as it is written."""
    paragraphs = re.split(r"\n\s*\n", text.strip()) if isinstance(text, str) and text.strip() else []
    return joined(element("p", inline(paragraph)) for paragraph in paragraphs)


def inline(text: object) -> Markup:
    """One line of it."""
    parts = CODE.split(str(text)) if text is not None else []
    return joined(element("code", part) if number % 2 else part for number, part in enumerate(parts))


def link(address: object, text: str) -> Markup:
    """A link into the page or to the web; any other address, such as a script, is text."""
    if isinstance(address, str) and (address.startswith("#") or WEB.fullmatch(address)):
        return element("a", text, href=address)
    return element("span", text)


def json_block(value: object) -> Markup:
    """A document, formatted."""
    return element("pre", element("code", json.dumps(value, indent=2, ensure_ascii=False, default=str)))


def anchor(*parts: str) -> str:
    """An id of the page; other parts, another id."""
    return "-".join(re.sub(r"[^A-Za-z0-9.]", lambda found: f"_{ord(found.group()):x}_", part) for part in parts)
