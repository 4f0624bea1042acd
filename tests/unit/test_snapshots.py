"""What a replica has just written is known without a read, for as long as it helps."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from service.domain.states import Output, OutputStatus, Request, RequestState
from service.workers.snapshots import KEPT_S, Snapshots
from tests.unit.builders import a_request


class Clock:
    """Time as the test tells it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def active(request_id: str, outputs: int = 1) -> Request:
    """A submitted request with outputs `<request id>-<index>`."""
    made = tuple(Output(index, f"{request_id}-{index}", OutputStatus.QUEUED) for index in range(outputs))
    return replace(a_request(RequestState.SUBMITTED, request_id=request_id), outputs=made)


def test_a_request_is_found_by_each_of_its_generations() -> None:
    snapshots = Snapshots()
    snapshots.keep(request := active("r-1", outputs=3))
    snapshots.keep(active("r-2"))
    assert snapshots.owners(["r-1-0", "r-1-2", "unknown"]) == {"r-1": request}


def test_the_latest_of_a_request_counts_and_an_ended_one_is_forgotten() -> None:
    snapshots = Snapshots()
    snapshots.keep(active("r-1", outputs=2))
    snapshots.keep(later := replace(active("r-1", outputs=2), version=7))
    assert snapshots.owners(["r-1-0", "r-1-1"]) == {"r-1": later}
    snapshots.keep(replace(later, state=RequestState.SUCCEEDED))
    assert snapshots.owners(["r-1-0", "r-1-1"]) == {}
    assert len(snapshots) == 0


def test_outputs_that_never_got_an_id_take_no_place() -> None:
    snapshots = Snapshots()
    snapshots.keep(replace(active("r-1"), outputs=(Output(0, None, OutputStatus.QUEUED),)))
    assert len(snapshots) == 0


def test_when_it_is_full_the_new_is_left_out_and_what_is_known_is_still_renewed() -> None:
    snapshots = Snapshots(limit=2)
    for request_id in ("r-1", "r-2", "r-3"):
        snapshots.keep(active(request_id))
    snapshots.keep(later := replace(active("r-2"), version=7))
    assert snapshots.owners(["r-1-0", "r-2-0", "r-3-0"]) == {"r-1": active("r-1"), "r-2": later}


@pytest.mark.parametrize(("age", "room"), [(KEPT_S - 1, False), (KEPT_S + 1, True)])
def test_what_stands_for_very_long_makes_room_for_the_new(age: float, room: bool) -> None:
    clock = Clock()
    snapshots = Snapshots(limit=1, clock=clock)
    snapshots.keep(active("r-1"))
    clock.now += age
    snapshots.keep(active("r-2"))
    assert ("r-2" in snapshots.owners(["r-2-0"])) is room
    assert len(snapshots) == 1
