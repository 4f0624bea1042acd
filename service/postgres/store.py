"""Requests in Postgres: what intake stores, what the submitter claims, what decisions change."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from itertools import chain, starmap

import asyncpg

from service.domain.claims import Claims, Limits
from service.domain.decisions import Decision
from service.domain.errors import StatementError
from service.domain.facts import OutputReported
from service.domain.matching import Doubt
from service.domain.messages import Cancel, NewRequest, OutboxEvent, Pending, Repeat
from service.domain.states import InFlight, Request
from service.postgres import rows
from service.postgres.database import Database

UNIQUE_VIOLATION = "23505"  # an SQLSTATE


class RequestStore:
    """The state of every request. Each method is one statement and one commit; a claim within limits is two."""

    def __init__(self, database: Database, lane: str = "default", limits: Limits | None = None) -> None:
        self._database = database
        self._lane = lane
        self._limits = limits or Limits()

    # -- intake ---------------------------------------------------------------------------------------------------

    async def insert(self, new: Sequence[tuple[NewRequest, OutboxEvent]], now: datetime) -> dict[str, bool]:
        """Stores new requests, each with its `generation.accepted`; answers the ids that were not known before, and
        whether each was cancelled before it came."""
        found = await self._database.fetch(
            "insert_requests", *rows.columns(starmap(rows.new_request_row, new), 19, whole=(3, 7, 12, 18)), now
        )
        return {row["request_id"]: row["cancelled"] for row in found}

    async def repeat(self, repeats: Sequence[Repeat], now: datetime) -> set[str]:
        """Replaces reply addresses; an ended request sends its terminal event again. Answers the ids whose content
        is the stored one."""
        turned = [(item.request_id, item.content_hash, item.correlation_id, item.reply_to) for item in repeats]
        found = await self._database.fetch("repeat_requests", *rows.columns(turned, 4, whole=(1,)), now)
        # A request that ended while this waited for its row has its event out of this statement's sight: once more.
        missed = {row["request_id"] for row in found if row["unanswered"]}
        if missed:
            again = [item for item in turned if item[0] in missed]
            await self._database.fetch("repeat_requests", *rows.columns(again, 4, whole=(1,)), now)
        return {row["request_id"] for row in found}

    async def known(self, request_ids: Sequence[str]) -> set[str]:
        """Which of these ids are stored."""
        found = await self._database.fetch("known_requests", list(request_ids))
        return {row["request_id"] for row in found}

    async def insert_answers(self, events: Sequence[OutboxEvent], now: datetime) -> None:
        """Stores rejections, which belong to no request."""
        turned = [
            (
                event.event_id,
                event.request_id,
                event.routing_key,
                event.type,
                event.body,
                event.correlation_id,
                event.reply_to,
                event.traceparent,
                event.tracestate,
            )
            for event in events
        ]
        await self._database.fetch("insert_answers", *rows.columns(turned, 9, whole=(4,)), now)

    # -- submitting -----------------------------------------------------------------------------------------------

    async def claim(
        self,
        limit: int,
        holder: str,
        lease_s: float,
        now: datetime,
        *,
        held: Sequence[str] = (),
        only: str | None = None,
        after: str = "",
    ) -> Claims:
        """Takes up to `limit` due requests for `lease_s` seconds, counted from before the question: sources in turn,
        from the one behind `after` on; none of the namespaces `held`, or of `only` this one."""
        expires = rows.monotonic_in(lease_s)
        limits = (self._lane, self._limits.rate_per_s, self._limits.max_in_flight)
        asked = (limit, holder, lease_s, now, list(held), only, after, *limits)
        try:
            if self._limits.any:
                found = await self._database.fetch_after("lock_limits", (self._lane,), "claim", *asked)
            else:
                found = await self._database.fetch("claim", *asked)
        except StatementError as error:
            if error.code != UNIQUE_VIOLATION:
                raise
            return Claims(contended=True)  # another replica claimed the same unmarked content at this very moment
        claimed = tuple(rows.claimed_of(row, now, expires) for row in found if row["request_id"] is not None)
        told = found[0]
        return Claims(claimed, told["hold_s"], told["wait_s"], contended=told["contended"])

    async def hold_off(self, seconds: float) -> None:
        """No replica claims for so long."""
        await self._database.fetch("hold_off", self._lane, seconds)

    async def promote(self, limit: int, now: datetime) -> int:
        """Lets up to `limit` requests be claimed whose back-off is over; answers how many there were."""
        return int(await self._database.fetchval("promote", now, limit))

    async def expired_claims(self, limit: int, now: datetime | None = None) -> list[tuple[str, int]]:
        """(request id, attempt) whose claim ran out without a word; `now` only to move time in tests."""
        found = await self._database.fetch("expired_claims", now, limit)
        return [(row["request_id"], row["attempts"]) for row in found]

    async def lost_claim(self, holder: str, asked_at: datetime) -> list[tuple[str, int]]:
        """(request id, attempt) of what `holder` took by the claim of that moment, whose answer it did not hear."""
        found = await self._database.fetch("lost_claim", holder, asked_at)
        return [(row["request_id"], row["attempts"]) for row in found]

    # -- decisions ------------------------------------------------------------------------------------------------

    async def load(self, request_ids: Sequence[str]) -> dict[str, Request]:
        """Requests with their outputs, by id; unknown ids are left out."""
        return rows.requests_of(await self._database.fetch("load_requests", list(request_ids)))

    async def load_owners(self, generation_ids: Sequence[str]) -> dict[str, Request]:
        """The requests that these generations belong to, by request id; generations of others are left out."""
        return rows.requests_of(await self._database.fetch("load_owners", list(generation_ids)))

    async def apply(self, decisions: Sequence[tuple[Decision, Sequence[OutboxEvent]]], now: datetime) -> set[str]:
        """Writes decisions with their events; answers the ids whose version was still the one decided on."""
        decisions = sorted(decisions, key=_by_request)  # rows are locked in one order, so no two writers embrace
        requests = [
            (
                decision.after.request_id,
                decision.before.version,
                decision.after.state.value,
                decision.after.sequence,
                decision.after.submitted_at,
                decision.after.finished_at,
                rows.fault_json(decision.after.error),
                decision.retry_at,
                decision.after.doubt_looks,
                decision.after.stop_cause,
                decision.after.stop_requested_at,
            )
            for decision, _ in decisions
        ]
        added: list[tuple[object, ...]] = []
        changed: list[tuple[object, ...]] = []
        for decision, _ in decisions:
            known = {output.index for output in decision.before.outputs}
            for output in decision.outputs:
                row = rows.output_row(decision.after.request_id, output)
                (changed if output.index in known else added).append(row)
        events = [
            (
                event.event_id,
                event.request_id,
                event.sequence,
                event.terminal,
                event.type,
                event.body,
                event.correlation_id,
                event.reply_to,
                event.traceparent,
                event.tracestate,
            )
            for _, emitted in decisions
            for event in emitted
        ]
        parts = ((requests, 11, ()), (added, 9, ()), (changed, 9, ()), (events, 10, (5,)))
        found = await self._database.fetch("apply", *chain.from_iterable(starmap(rows.columns, parts)), now)
        return {row["request_id"] for row in found}

    # -- orphans and gaps -----------------------------------------------------------------------------------------

    async def insert_orphans(self, reports: Sequence[OutputReported], now: datetime) -> None:
        """Keeps ends of generations that are not (yet) known here."""
        await self._database.fetch("insert_orphans", *rows.columns(map(rows.report_row, reports), 5), now)

    async def heard_of(self, generation_ids: Sequence[str]) -> tuple[datetime | None, list[OutputReported]]:
        """Since when the stream is open, and what it said of these generations before they were stored."""
        found = await self._database.fetch("heard_of", list(generation_ids), self._lane)
        return found[0]["stream_opened_at"], [rows.report_of(row) for row in found if row["generation_id"]]

    async def matched_orphans(self, limit: int) -> list[OutputReported]:
        """Orphans whose generation is stored and not ended."""
        return [rows.report_of(row) for row in await self._database.fetch("matched_orphans", limit)]

    async def in_flight(self) -> list[InFlight]:
        """All that the hub has not ended for us, by namespace."""
        parts: dict[str | None, tuple[list[str], list[str]]] = defaultdict(lambda: ([], []))

        def take(found: list[asyncpg.Record]) -> None:
            for namespace, generation_id, denied in found:
                known, unknown = parts[namespace]
                known.append(generation_id)
                if denied:
                    unknown.append(generation_id)

        await self._database.fetch_in_parts("in_flight", (), take)
        return [InFlight(namespace, known, unknown) for namespace, (known, unknown) in parts.items()]

    async def doubts(self, limit: int) -> list[Doubt]:
        """Requests in doubt, the oldest doubts first."""
        return [rows.doubt_of(row) for row in await self._database.fetch("doubts", limit)]

    async def owned(self, generation_ids: Sequence[str]) -> dict[str, str]:
        """Which of these generations are outputs of ours, and of which request."""
        found = await self._database.fetch("owned", list(generation_ids))
        return {row["generation_id"]: row["request_id"] for row in found}

    async def pending(self, now: datetime) -> Pending:
        """What waits, wherever it was made."""
        found = (await self._database.fetch("pending", now))[0]
        return Pending(**found)

    # -- stops ----------------------------------------------------------------------------------------------------

    async def overdue(self, limit: int, now: datetime) -> list[str]:
        """Requests whose deadline has passed."""
        return [row["request_id"] for row in await self._database.fetch("overdue", now, limit)]

    async def stopping(self, limit: int, now: datetime) -> list[Request]:
        """Requests whose outputs the hub is to end now, with their outputs."""
        return list(rows.requests_of(await self._database.fetch("stopping", now, limit)).values())

    async def keep_early_cancels(self, request_ids: Sequence[str], now: datetime) -> None:
        """Keeps the cancels of requests that are not known (yet)."""
        await self._database.fetch("keep_early_cancels", list(request_ids), now)

    async def matched_cancels(self, limit: int) -> list[str]:
        """Early cancels whose request has come."""
        return [row["request_id"] for row in await self._database.fetch("matched_cancels", limit)]

    async def forget_cancels(self, request_ids: Sequence[str]) -> None:
        """Drops early cancels that have been applied."""
        await self._database.fetch("forget_cancels", list(request_ids))

    async def repeat_ends(self, cancels: Sequence[Cancel], now: datetime) -> set[str]:
        """Sends the terminal events of ended requests again; answers which had one."""
        turned = [(cancel.request_id, cancel.correlation_id, cancel.reply_to) for cancel in cancels]
        found = await self._database.fetch("repeat_ends", *rows.columns(turned, 3), now)
        return {row["request_id"] for row in found}

    # -- looking --------------------------------------------------------------------------------------------------

    async def count_by_state(self) -> dict[str, int]:
        """How many requests wait, by state."""
        return {row["state"]: row["count"] for row in await self._database.fetch("count_by_state")}

    async def delete_old(self, statement: str, before: datetime, limit: int) -> int:
        """One bounded step of a janitor's statement (`janitor.sql`); how many rows went."""
        return int(await self._database.fetchval(statement, before, limit))


def _by_request(decided: tuple[Decision, Sequence[OutboxEvent]]) -> str:
    return decided[0].after.request_id
