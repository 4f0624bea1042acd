"""What the hub does with a request once it is understood, without HTTP."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from service.sandbox.agenda import Agenda
from service.sandbox.catalog import Catalog, Model
from service.sandbox.commission import Commission, ParametersError
from service.sandbox.dice import Dice
from service.sandbox.faults import Faults
from service.sandbox.generation import CANCELLED, FAILED, SUCCEEDED, Generation, Ledger
from service.sandbox.results import Results
from service.sandbox.stream import Broadcast

if TYPE_CHECKING:
    from service.sandbox.options import SandboxOptions
    from service.sandbox.studio import Studio

COMPLETED = "media_generation_completed"

# The share of a generation's delay during which it is still `queued`.
_QUEUED_SHARE = 0.2


class Hub:
    """Generations from their acceptance to their end. `base_url` is put in front of result paths."""

    def __init__(self, options: SandboxOptions, studio: Studio | None) -> None:
        self._options = options
        self._studio = studio
        self._agenda: Agenda[Generation] = Agenda(self._fall_due)
        self._renderings: set[asyncio.Task[None]] = set()
        self._faults = Faults()
        self._replaced = asyncio.Event()
        self.base_url = ""
        self.catalog = Catalog()
        self.ledger = Ledger()
        self.dice = Dice(options.seed)
        self.broadcast = Broadcast(options.keep_alive_s, self.dice, lambda: self._faults)
        self.results = Results(ttl_s=options.url_ttl_s, max_bytes=options.results_max_bytes)

    @property
    def faults(self) -> Faults:
        """The set in force; its fields may be assigned to. Replacing it settles what lasts, as Faults says."""
        return self._faults

    @faults.setter
    def faults(self, faults: Faults) -> None:
        self._faults = faults
        self._replaced.set()
        self._replaced = asyncio.Event()
        self.broadcast.heed_faults()

    async def until_faults_are_replaced(self) -> None:
        """Until the set of faults is another one, or the hub closes."""
        await self._replaced.wait()

    def strikes(self, fault: str) -> bool:
        """Whether the fault of that name, whose value is a probability, strikes this time."""
        probability: float = getattr(self._faults, fault)
        if probability <= 0 or not self.dice.falls(fault, probability):
            return False
        self.ledger.strikes[fault] += 1
        return True

    def struck_by(self, faults: tuple[str, ...]) -> str | None:
        """The first of these faults that strikes this time."""
        for fault in faults:
            if self.strikes(fault):
                return fault
        return None

    def accept(
        self, model: Model, parameters: dict[str, Any], namespace: str | None, count: int, *, at_once: bool
    ) -> list[Generation]:
        """Start `count` generations of the same parameters; with `at_once` they end without delay."""
        now = time.time()
        namespace = namespace or self._options.namespace
        return [self._start(model, parameters, namespace, now, at_once=at_once) for _ in range(count)]

    def cancel(self, generation: Generation) -> bool:
        """End an active generation without any event; False, and nothing happens, when it is not active."""
        if not generation.active:
            return False
        self.ledger.settle(generation, CANCELLED)
        return True

    def result_url(self, generation: Generation) -> str | None:
        """A fresh presigned URL of a generation that succeeded: each answer that shows one signs its own."""
        if generation.end != SUCCEEDED:
            return None
        name = generation.file.name if generation.file else f"{generation.id}.{_suffix(generation)}"
        return self.base_url + self.results.sign(name)

    def view(self, generation: Generation) -> dict[str, Any]:
        """A generation as list and get show it."""
        return generation.view(self.result_url(generation))

    async def wait(self, generation: Generation) -> None:
        """Until it has ended, or was forgotten."""
        if generation.active:
            if generation.waiter is None:
                generation.waiter = asyncio.get_running_loop().create_future()
            # One waiter that is cancelled, because its client has gone, must not end the others' waiting.
            await asyncio.shield(generation.waiter)

    async def close(self) -> None:
        """Drop all that is under way, and end the streams and the waiting. The files stay."""
        self._replaced.set()
        self._agenda.close()
        for rendering in self._renderings:
            rendering.cancel()
        await asyncio.gather(*self._renderings, return_exceptions=True)
        if self._studio is not None:
            await self._studio.close()
        for generation in self.ledger.active.values():
            if generation.waiter is not None:
                generation.waiter.cancel()
        self.broadcast.close()

    def _start(
        self, model: Model, parameters: dict[str, Any], namespace: str, now: float, *, at_once: bool
    ) -> Generation:
        delay_s, jitter_s = self._options.delay_s, self._options.jitter_s
        if at_once:
            delay_s = 0.0
        elif jitter_s:
            delay_s = max(0.0, delay_s + self.dice.between("jitter_s", -jitter_s, jitter_s))
        generation = Generation(model, parameters, namespace, now, now + delay_s * _QUEUED_SHARE)
        self.ledger.add(generation)
        generation.never_ending = self.strikes("never_ending")
        if not generation.never_ending:
            self._agenda.add(delay_s, generation)
        if self._faults.hidden_s:
            self.ledger.hide(generation, self._faults.hidden_s)
        if self.strikes("forgotten"):
            self.ledger.forget(generation)
        return generation

    def _fall_due(self, generation: Generation) -> None:
        if not generation.active:
            return
        try:
            commission = generation.model.judge(generation.parameters)
        except ParametersError as refusal:
            self._end(generation, FAILED, str(refusal))
            return
        if self._studio is None:
            self._end(generation, SUCCEEDED)
        else:
            self._spawn(self._render(self._studio, generation, commission))

    async def _render(self, studio: Studio, generation: Generation, commission: Commission) -> None:
        path = self.results.path(f"{generation.id}.{commission.suffix}")
        try:
            rendered = await studio.render(commission, path, lambda: not generation.active)
        except Exception as error:  # noqa: BLE001  # whatever broke the rendering, the generation has to end
            path.unlink(missing_ok=True)
            if generation.active:
                self._end(generation, FAILED, f"Rendering failed: {error}")
            return
        if rendered and generation.active:
            self.results.keep(path)
            generation.file = path
            self._end(generation, SUCCEEDED)
        else:
            path.unlink(missing_ok=True)

    def _end(self, generation: Generation, end: str, error: str | None = None) -> None:
        """Enter the end first, then tell of it: who asks because of the event must find it ended."""
        self.ledger.settle(generation, end, error)
        event: dict[str, object] = {
            "generation_id": generation.id,
            "status": end,
            "media_type": generation.media_type,
        }
        if end == SUCCEEDED:
            event |= {"model": generation.model.id, "url": self.result_url(generation)}
        else:
            event["error"] = error
        if self.strikes("events_foreign"):
            self._tell_foreign()
        if not self.strikes("events_dropped"):
            self.broadcast.publish(COMPLETED, event, times=2 if self.strikes("events_doubled") else 1)

    def _tell_foreign(self) -> None:
        """What else happens on the stream of a user who does not work through one client alone."""
        stranger = str(uuid4())
        self.broadcast.publish("credits_updated", {"generation_id": stranger, "credits": 12.5})
        failed = {"generation_id": stranger, "status": FAILED, "media_type": "image", "error": "Not one of yours"}
        self.broadcast.publish(COMPLETED, failed)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._renderings.add(task)
        task.add_done_callback(self._renderings.discard)


def _suffix(generation: Generation) -> str:
    return "mp4" if generation.media_type == "video" else "png"
