"""What there is to say of an id that no request is stored under: what was told of it, and where else it may be."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from msgspec import Struct

from service.cli.letters import request_id_of
from service.cli.moments import since
from service.cli.status.explain import Explanation
from service.domain.errors import DroverError
from service.domain.stored import StoredEvent
from service.rabbit.probe import BrokerState, Found, Reach, probe_broker
from service.rabbit.quarantine import Choice, Quarantine
from service.rabbit.topology import CANCELS, COMMANDS, DEAD, REQUEST_KEY, REQUESTS

MOST_LETTERS = 2000  # are looked through; more would keep them from others for long


class Bus(Struct, frozen=True):
    """What was found on the bus: letters by request id, and how much waits for how many consumers; `told` why not."""

    letters: Mapping[str, Sequence[tuple[str, str]]] = {}  # request id: (letter id, reason)
    waiting: int = 0
    waiting_cancels: int = 0
    consumers: int = 0
    unread: int = 0  # letters beyond those that were looked through
    told: str = ""


async def look_for(url: str, request_ids: Collection[str]) -> Bus:
    """Looks through the quarantine, whose letters stay where they are. A bus that cannot be asked is told of."""
    try:
        state = await probe_broker(url)
        queues = {
            item.name: item for item in state.declared if item.kind == "queue" and item.found is not Found.MISSING
        }
        if state.reach is not Reach.OPEN or not {REQUESTS, CANCELS, DEAD} <= set(queues):
            return Bus(told=_untold(state))
        letters: dict[str, list[tuple[str, str]]] = {}
        if queues[DEAD].messages:
            async with Quarantine(url) as quarantine:
                async for held in quarantine.find(Choice(limit=MOST_LETTERS)):
                    if (request_id := request_id_of(held.letter)) in request_ids and request_id is not None:
                        letters.setdefault(request_id, []).append((held.letter.letter_id, held.letter.reason))
    except DroverError as error:
        return Bus(told=str(error))
    return Bus(
        letters=letters,
        waiting=queues[REQUESTS].messages,
        waiting_cancels=queues[CANCELS].messages,
        consumers=queues[REQUESTS].consumers,
        unread=max(0, queues[DEAD].messages - MOST_LETTERS),
    )


def _untold(state: BrokerState) -> str:
    return state.told or "drover's queues are not on this broker; run `drover doctor`."


def explain_absent(
    request_id: str,
    events: Sequence[StoredEvent],
    bus: Bus,
    now: datetime,
    *,
    early_cancel: bool,
    retention_days: float,
) -> Explanation:
    """One id that is not stored."""
    letters = bus.letters.get(request_id, ())
    found = [f"No request is stored under {request_id}."]
    found += [f"A message with this id was rejected {since(event.created_at, now)} ({event.name})." for event in events]
    found += [f"A message with this id is in quarantine: {letter} ({reason})." for letter, reason in letters]
    if early_cancel:
        found.append("A cancel waits for it, and is applied when it comes (within 24 hours of the cancel).")
    if letters:
        ids = " ".join(letter for letter, _ in letters)
        return Explanation(
            " ".join(found),
            _waiting(bus),
            f"`drover dead show {letters[0][0]}` says all; then `drover dead replay {ids}`.",
        )
    if events:
        advice = "What is wrong with it stands below; nothing was paid, and the id may come again."
        return Explanation(" ".join(found), _waiting(bus), advice)
    return Explanation(" ".join(found), _waiting(bus), _what_to_check(bus, retention_days))


def _waiting(bus: Bus) -> str:
    if bus.told:
        return f"The bus could not be looked at: {bus.told}"
    if bus.waiting:
        who = f"{bus.consumers} replica(s) consume" if bus.consumers else "no replica consumes: run `drover serve`"
        return f"It may be among the {bus.waiting} message(s) that wait in {REQUESTS}; {who}."
    return ""


def _what_to_check(bus: Bus, retention_days: float) -> str:
    unread = f" {bus.unread} more letters of {DEAD} were not looked through." if bus.unread else ""
    return (
        f"Check that the producer had its confirm, with `mandatory` set; that it publishes to {COMMANDS} with the key "
        f"{REQUEST_KEY}, on this broker and vhost; and the id itself. A request is forgotten {retention_days:g} days "
        f"after its end (DROVER_RETENTION_DAYS).{unread}"
    )
