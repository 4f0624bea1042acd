"""Stored requests, the way intake and the settler make them, in the state that a specification begins with."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias
from urllib.parse import urlsplit, urlunsplit

import asyncpg
from msgspec.structs import replace

from service.domain.decisions import Decision
from service.domain.facts import Fact, HubAccepted, OutputReported
from service.domain.lifecycle import decide
from service.domain.messages import NewRequest, OutboxEvent
from service.domain.states import OutputStatus, Request, RequestState
from service.postgres.store import RequestStore
from service.wire.events import encode_accepted, encode_emissions

NOW = datetime(2030, 1, 31, 12, 0, tzinfo=UTC)
SECOND, DAY = timedelta(seconds=1), timedelta(days=1)
LEASE_S = 30.0

Sql: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
Decided: TypeAlias = tuple[Decision, Sequence[OutboxEvent]]


def new_request(request_id: str = "r-1", *, content: str | None = None, priority: int = 4, **fields: Any) -> NewRequest:
    """A request as intake hands it to the store, each with content of its own; `fields` are the request's own."""
    request = Request(
        **{
            "request_id": request_id,
            "version": 1,
            "state": RequestState.ACCEPTED,
            "sequence": 1,
            "source": "team-a",
            "model": "ltx-2-3-quality-text-to-video",
            "num_generations": 1,
            "received_at": NOW,
            **fields,
        }
    )
    return NewRequest(
        request=request,
        input={"prompt": content or request_id},
        content_hash=hash_of(content or request_id),
        priority=priority,
        deadline=NOW + DAY,
        input_checked=True,
    )


def hash_of(content: str) -> bytes:
    """What idempotency compares."""
    return hashlib.sha256(content.encode()).digest()


def with_event(new: NewRequest) -> tuple[NewRequest, OutboxEvent]:
    """The request with its `generation.accepted`."""
    return new, encode_accepted(new.request, NOW)


async def stored(store: RequestStore, *news: NewRequest | str, now: datetime = NOW) -> set[str]:
    """Stores requests (an id stands for an ordinary one); the ids that were new."""
    inserted = await store.insert([with_event(new_request(new) if isinstance(new, str) else new) for new in news], now)
    return set(inserted)


async def claimed(store: RequestStore, *request_ids: str, now: datetime = NOW) -> list[Request]:
    """Stored and claimed by one replica, in the order of their ids."""
    await stored(store, *request_ids, now=now)
    found = await store.claim(len(request_ids), "first", LEASE_S, now)
    return sorted((item.request for item in found), key=lambda request: request.request_id)


async def submitted(store: RequestStore, *request_ids: str, outputs: int = 1, now: datetime = NOW) -> list[Request]:
    """With ids of the hub: `g-<request id>-<index>`."""
    news = [new_request(request_id, num_generations=outputs) for request_id in request_ids]
    await stored(store, *news, now=now)
    requests = [item.request for item in await store.claim(len(request_ids), "first", LEASE_S, now)]
    accepted = [decided(request, accepted_by_hub(request.request_id, outputs)) for request in requests]
    assert await store.apply(accepted, now) == set(request_ids)
    return sorted((await store.load(request_ids)).values(), key=lambda request: request.request_id)


async def ended(store: RequestStore, request_id: str, *, now: datetime = NOW) -> Request:
    """One that succeeded."""
    (request,) = await submitted(store, request_id, now=now)
    assert await store.apply([decided(request, succeeded(f"g-{request_id}-0"), now=now)], now) == {request_id}
    return (await store.load([request_id]))[request_id]


def accepted_by_hub(request_id: str, outputs: int = 1) -> HubAccepted:
    """The hub gives ids."""
    return HubAccepted(tuple(f"g-{request_id}-{index}" for index in range(outputs)))


def succeeded(generation_id: str, url: str = "https://files.test/a.mp4") -> OutputReported:
    """The end of a generation with a result."""
    return OutputReported(generation_id, OutputStatus.SUCCEEDED, "video", url)


def failed(generation_id: str, error: str = "out of memory") -> OutputReported:
    """The end of a generation without one."""
    return OutputReported(generation_id, OutputStatus.FAILED, error=error)


def decided(request: Request, *facts: Fact, now: datetime = NOW) -> Decided:
    """What the service decides, with its events, as `apply` takes it."""
    decision = decide(request, facts, now)
    assert decision is not None
    return decision, encode_emissions(decision.emissions, now)


def stale(request: Request) -> Request:
    """The request as somebody saw it before the latest change."""
    return replace(request, version=request.version - 1)


def as_user(url: str, user: str, password: str) -> str:
    """The same server and path for another user."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{user}:{password}@{parts.hostname}:{parts.port}"))
