"""One generation, and the ledger of all of them."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from service.sandbox.posts import Post

if TYPE_CHECKING:
    import asyncio
    from pathlib import Path

    from service.sandbox.catalog import Model
    from service.sandbox.commission import MediaType

QUEUED: Final = "queued"
"""Accepted. Leaves by the passing of time (to processing) or by a cancel."""
PROCESSING: Final = "processing"
"""Being made. Leaves when its delay is over and its file is rendered, or by a cancel."""
SUCCEEDED: Final = "succeeded"
FAILED: Final = "failed"
CANCELLED: Final = "cancelled"
ACTIVE: Final = frozenset({QUEUED, PROCESSING})

_MOST_POSTS: Final = 1_000_000
_FILTERS: Final = ("status", "model", "namespace", "media_type", "repo", "folder")


class Generation:
    """One generation. Times are Unix seconds, `parameters` what the body held beside the queue's own fields."""

    __slots__ = (
        "end",
        "ended_at",
        "error",
        "file",
        "forgotten",
        "hidden_until",
        "id",
        "media_type",
        "model",
        "namespace",
        "never_ending",
        "parameters",
        "posted_at",
        "started_at",
        "waiter",
    )

    def __init__(self, model: Model, parameters: dict[str, Any], namespace: str, now: float, started_at: float) -> None:
        self.id = str(uuid4())
        self.model = model
        self.media_type: MediaType | None = model.media_type
        self.parameters = parameters
        self.namespace = namespace
        self.posted_at = now
        self.started_at = started_at
        self.ended_at: float | None = None
        self.end: str | None = None
        self.error: str | None = None
        self.file: Path | None = None
        self.waiter: asyncio.Future[None] | None = None
        self.never_ending = False
        self.hidden_until: float | None = None
        self.forgotten = False

    @property
    def active(self) -> bool:
        """Whether it has neither ended nor been forgotten."""
        return self.end is None and not self.forgotten

    def shown(self, now: float) -> bool:
        """Whether the hub knows of it, as far as clients can see."""
        return not self.forgotten and (self.hidden_until is None or self.hidden_until <= now)

    @property
    def status(self) -> str:
        """The hub's name for its state now. Nothing happens when a generation starts, so no timer is spent on it."""
        if self.end is not None:
            return self.end
        return PROCESSING if time.time() >= self.started_at else QUEUED

    @property
    def prompt(self) -> Any:  # noqa: ANN401  # bad parameters are judged late: it may be anything
        """The prompt, as received."""
        return self.parameters.get("prompt")

    def settle(self, end: str, error: str | None = None) -> None:
        """End it, once, and wake who waits for it."""
        self.end, self.error, self.ended_at = end, error, time.time()
        self.wake()

    def wake(self) -> None:
        """Wake who waits for its end: it has come, or will not come any more."""
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)

    def view(self, result_url: str | None) -> dict[str, Any]:
        """As list and get show it: every parameter echoed, the hub's own fields on top."""
        status = self.status
        return self.parameters | {
            "generation_id": self.id,
            "model_name": self.model.id,
            "prompt": self.prompt,
            "media_type": self.media_type,
            "status": status,
            "result_url": result_url,
            "error_message": self.error,
            "enqueued_at": int(self.posted_at),
            "started_at": int(self.started_at) if status != QUEUED else None,
            "completed_at": int(self.ended_at) if self.ended_at is not None else None,
        }

    def entry(self) -> dict[str, Any]:
        """As the ledger shows it to tests. A forgotten one stays in the status in which it was forgotten."""
        return {
            "generation_id": self.id,
            "model": self.model.id,
            "prompt": self.prompt,
            "status": self.status,
            "posted_at": self.posted_at,
            "ended_at": self.ended_at,
            "namespace": self.namespace,
            "parameters": self.parameters,
            "never_ending": self.never_ending,
            "hidden_until": self.hidden_until,
            "forgotten": self.forgotten,
        }


def matching(generations: Iterable[Generation], query: Mapping[str, str]) -> list[Generation]:
    """Those that pass every filter in `query`. The sandbox stores into no repository, so the filters `repo` and
    `folder` find only what carries a parameter of that name."""
    wanted: dict[str, Callable[[Generation], Any]] = {
        "status": lambda generation: generation.status,
        "model": lambda generation: generation.model.id,
        "namespace": lambda generation: generation.namespace,
        "media_type": lambda generation: generation.media_type,
        "repo": lambda generation: generation.parameters.get("repo"),
        "folder": lambda generation: generation.parameters.get("folder"),
    }
    filters = [(wanted[name], query[name]) for name in _FILTERS if name in query]
    return [g for g in generations if all(value(g) == asked for value, asked in filters)]


class Ledger:
    """Every generation ever accepted, the active ones besides, every POST (the latest, if there are too many), how
    often each endpoint was called, and how often each fault struck.
    """

    def __init__(self) -> None:
        self.generations: dict[str, Generation] = {}
        self.active: dict[str, Generation] = {}
        names = ("post", "list", "get", "delete", "events", "models", "generate", "results", "unauthorized")
        self.calls: Counter[str] = Counter(dict.fromkeys(names, 0))
        self.strikes: Counter[str] = Counter()
        self.posts: deque[Post] = deque(maxlen=_MOST_POSTS)
        self._veiled = False

    def enter_post(self) -> Post:
        """Enter a POST to the queue that has just come."""
        self.calls["post"] += 1
        post = Post()
        self.posts.append(post)
        return post

    def add(self, generation: Generation) -> None:
        """Enter a new generation."""
        self.generations[generation.id] = self.active[generation.id] = generation

    def settle(self, generation: Generation, end: str, error: str | None = None) -> None:
        """Enter the end of an active generation."""
        del self.active[generation.id]
        generation.settle(end, error)

    def hide(self, generation: Generation, seconds: float) -> None:
        """Keep a generation from clients for so long after it was posted."""
        generation.hidden_until = generation.posted_at + seconds
        self._veiled = True

    def forget(self, generation: Generation) -> bool:
        """Keep a generation from clients for ever: nothing happens to it any more. False if that was so before."""
        if generation.forgotten:
            return False
        generation.forgotten = self._veiled = True
        self.active.pop(generation.id, None)
        generation.wake()
        return True

    def shown(self, generation_id: str) -> Generation | None:
        """The generation of that id, if clients may see it."""
        generation = self.generations.get(generation_id)
        if generation is None or (self._veiled and not generation.shown(time.time())):
            return None
        return generation

    def find(self, query: Mapping[str, str]) -> list[Generation]:
        """What the list endpoint finds: without a `status` only active ones, so ended ones cost it nothing."""
        ended = query.get("status", QUEUED) not in ACTIVE
        found = matching((self.generations if ended else self.active).values(), query)
        if self._veiled:
            now = time.time()
            found = [generation for generation in found if generation.shown(now)]
        return found
