"""The one error that the commands of the local stack show to people."""

from __future__ import annotations


class StackError(Exception):
    """Something a person can act on: the message says what happened and what to do, in a sentence."""
