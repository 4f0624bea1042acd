"""What the report measures."""

from __future__ import annotations

from dataclasses import replace

from tests.chaos.evidence import Evidence, Incident, StreamSpan
from tests.chaos.recovery import Recovery, recoveries
from tests.chaos.schedule import FaultKind
from tests.chaos.test_checker import T, good, line


def measured(evidence: Evidence) -> dict[str, Recovery]:
    return {recovery.what: recovery for recovery in recoveries(evidence)}


def struck(*incidents: Incident) -> Evidence:
    opened = [line("stream.opened", T, "a"), line("stream.opened", T + 17, "b")]
    return replace(good(), incidents=incidents, log=opened)


def test_a_hand_over_is_measured_to_the_next_stream() -> None:
    found = measured(struck(Incident(FaultKind.KILL_LEADER, T + 10, T + 10, "a")))
    assert found["leader killed -> stream opened again, alone"].seconds == (7.0,)


def test_a_hand_over_amid_other_faults_is_counted_apart() -> None:
    outage = Incident(FaultKind.RESTART_DATABASE, T + 9, T + 12)
    found = measured(struck(Incident(FaultKind.KILL_LEADER, T + 10, T + 10, "a"), outage))
    assert "leader killed -> stream opened again, alone" not in found
    assert found["leader killed -> stream opened again, amid other faults"].seconds == (7.0,)


def test_what_never_recovered_is_told() -> None:
    found = measured(struck(Incident(FaultKind.FREEZE_LEADER, T + 18, T + 30, "b")))
    never = found["leader frozen -> stream opened again, alone"]
    assert (never.seconds, never.missing) == ((), 1)


def test_a_cut_is_measured_to_the_next_stream_at_the_hub() -> None:
    streams = (StreamSpan(T, T + 3), StreamSpan(T + 3.5, None))
    cut = Incident(FaultKind.CUT_STREAM, T + 3, T + 3)
    found = measured(replace(good(), streams=streams, incidents=[cut]))
    assert found["stream cut -> open again"].seconds == (0.5,)


def test_deliveries_are_measured_from_the_end_of_the_last_output() -> None:
    assert measured(good())["hub's end -> end at the consumer"].seconds == (1.0, 1.0, 1.0)
