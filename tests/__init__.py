"""Tests as specifications, against the real servers."""
