"""The hub's lists, read while they arrive: memory does not grow with them, and no single step takes long. Pure.

A list is `{"count": N, "generations": [...]}` without pages: 100 MB where 100,000 are in flight. Each generation is
read by the standard library's scanner, which parses one value at a position, in C, and says where it ends.
"""

from __future__ import annotations

import codecs
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable
from typing import Any, Generic, TypeVar

from service.domain.matching import Sighting
from service.domain.states import OutputStatus
from service.domain.upstream import Listing, Sightings
from service.hub.answers import read_error, read_sighting

MAX_LIST_BYTES = 512 * 1024 * 1024
MAX_ITEM_CHARS = 1024 * 1024
BLANK = re.compile(r"[ \t\n\r]*")
REST_OF_NUMBER = re.compile(r"[0-9.eE+-]*\Z")
ENDED = frozenset(status.value for status in OutputStatus if status.ended)

Answer_co = TypeVar("Answer_co", covariant=True)


class ListError(ValueError):
    """Not one whole, well-formed list, or too long a one. The text quotes nothing of it."""


class ListParser:
    """Takes a list in pieces of any size, and hands out its generations as they are complete.

    It reads what Python's json reads (of numbers and surrogates more than RFC 8259 allows: harmless, since nothing is
    concluded from them). All methods raise ListError.
    """

    def __init__(self, max_bytes: int = MAX_LIST_BYTES, max_item_chars: int = MAX_ITEM_CHARS) -> None:
        self.count: object = None
        self.error: object = None
        self.seen = 0
        self._max_bytes = max_bytes
        self._max_item_chars = max_item_chars
        self._bytes = 0
        self._utf8 = codecs.getincrementaldecoder("utf-8")()
        self._decoder = json.JSONDecoder()
        self._text, self._at = "", 0
        self._pieces: list[str] = []
        self._waiting, self._wanted = 0, 1
        self._ended = False
        self._items: list[object] = []
        self._found = self._whole = False
        self._steps = self._document()

    def feed(self, chunk: bytes) -> list[object]:
        """The generations that this piece completes."""
        self._bytes += len(chunk)
        if self._bytes > self._max_bytes:
            raise ListError(f"it is longer than {self._max_bytes} bytes")
        return self._take(chunk)

    def close(self) -> list[object]:
        """The generations that are left, once the list is known to be whole."""
        self._ended = True
        items = self._take(b"")
        if not (self._found and self._whole):
            raise ListError("there is no list of generations in it")
        return items

    def _take(self, chunk: bytes) -> list[object]:
        try:
            piece = self._utf8.decode(chunk, self._ended)
        except UnicodeDecodeError:
            raise ListError("it is not UTF-8") from None
        self._pieces.append(piece)
        self._waiting += len(piece)
        if self._ended or self._waiting >= self._wanted:
            self._text = "".join((self._text[self._at :], *self._pieces))
            self._at, self._waiting = 0, 0
            self._pieces.clear()
            next(self._steps, None)
            # What is incomplete is looked at again when there is twice as much of it: the work stays linear.
            self._wanted = max(1, len(self._text) - self._at)
        items, self._items = self._items, []
        return items

    # -- the grammar; each step stops (yields) where the text ends, and goes on when there is more ------------------

    def _document(self) -> Generator[None]:
        yield from self._sign("{")
        if (yield from self._next()) == "}":
            self._at += 1
        else:
            while True:
                yield from self._member()
                if (yield from self._sign(",}")) == "}":
                    break
        while not (yield from self._next()):
            if self._ended:
                self._whole = True
                return
        raise ListError("there is something behind it")

    def _member(self) -> Generator[None]:
        key = yield from self._value()
        yield from self._sign(":")
        if key == "generations":
            yield from self._generations()
            return
        value = yield from self._value()
        if key == "count":
            self.count = value
        elif key == "error":
            self.error = value
        elif not isinstance(key, str):
            raise ListError("it is not JSON")

    def _generations(self) -> Generator[None]:
        if self._found:
            raise ListError("there are two lists in it")
        if (yield from self._next()) != "[":
            raise ListError("there is no list of generations in it")
        self._found = True
        self._at += 1
        if (yield from self._next()) == "]":
            self._at += 1
            return
        while True:
            item = yield from self._value()
            self._items.append(item)
            self.seen += 1
            if (yield from self._sign(",]")) == "]":
                return

    def _sign(self, wanted: str) -> Generator[None, None, str]:
        """One of these characters, blanks before it."""
        found = yield from self._next()
        if not found or found not in wanted:
            raise ListError("it ends too early" if not found else "it is not JSON")
        self._at += 1
        return found

    def _next(self) -> Generator[None, None, str]:
        """The next character that is no blank, left where it is; nothing at the end."""
        while True:
            blank = BLANK.match(self._text, self._at)
            self._at = blank.end() if blank else self._at
            if self._at < len(self._text) or self._ended:
                return self._text[self._at : self._at + 1]
            yield

    def _value(self) -> Generator[None, None, Any]:
        """One whole value of bounded length."""
        yield from self._next()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
            except RecursionError:
                raise ListError("it is nested too deep") from None
            except ValueError:  # broken or not all there: only more text can tell
                value, end, whole = None, len(self._text), False
            else:
                # `12` may be the beginning of `12.5`.
                number = isinstance(value, int | float)
                whole = self._ended or not (number and REST_OF_NUMBER.match(self._text, end))
            if end - self._at > self._max_item_chars:
                raise ListError(f"an item is longer than {self._max_item_chars} characters, or is not JSON")
            if whole:
                self._at = end
                return value
            if self._ended:
                raise ListError("it ends too early, or is not JSON")
            yield


class ListReader(ABC, Generic[Answer_co]):
    """Draws from a list, as it arrives, what somebody wants to know. Methods raise ListError."""

    def __init__(self) -> None:
        self._list = ListParser()

    def feed(self, chunk: bytes) -> None:
        """The next piece of the list."""
        for item in self._list.feed(chunk):
            self._note(item)

    def close(self) -> Answer_co:
        """The answer, once all pieces are there."""
        for item in self._list.close():
            self._note(item)
        count = self._list.count
        left_out = isinstance(count, int) and count > self._list.seen
        return self._answer(complete=not left_out and read_error({"error": self._list.error}) is None)

    @abstractmethod
    def _note(self, item: object) -> None: ...

    @abstractmethod
    def _answer(self, *, complete: bool) -> Answer_co: ...


class ListingReader(ListReader[Listing]):
    """Which of `generation_ids` a list of active generations does not show, or shows as ended."""

    def __init__(self, generation_ids: Iterable[str]) -> None:
        super().__init__()
        self._missing = dict.fromkeys(generation_ids)

    def _note(self, item: object) -> None:
        if not isinstance(item, dict):
            return
        generation_id, status = item.get("generation_id"), item.get("status")
        if isinstance(generation_id, str) and not (isinstance(status, str) and status in ENDED):
            self._missing.pop(generation_id, None)

    def _answer(self, *, complete: bool) -> Listing:
        return Listing(tuple(self._missing), complete)


class SightingsReader(ListReader[Sightings]):
    """The generations of a list that are `wanted`, with their parameters."""

    def __init__(self, wanted: Callable[[Sighting], bool]) -> None:
        super().__init__()
        self._wanted = wanted
        self._kept: list[Sighting] = []
        self._unreadable = 0

    def _note(self, item: object) -> None:
        sighting = read_sighting(item)
        if sighting is None:
            self._unreadable += 1
        elif self._wanted(sighting):
            self._kept.append(sighting)

    def _answer(self, *, complete: bool) -> Sightings:
        return Sightings(tuple(self._kept), complete and not self._unreadable)
