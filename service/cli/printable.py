"""Texts of others, made safe for a terminal."""

from __future__ import annotations


def printable(text: str, keep: str = "") -> str:
    """The text with escapes for what would reach a terminal as a command."""
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text)
