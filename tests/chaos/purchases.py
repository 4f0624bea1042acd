"""The hub's ledger against what was asked for: nothing bought twice, nothing for nobody, every generation somebody's.

One that nobody owns is excused when the log and the ledger prove one of the two written-down causes: the request
was given up after two complete listings, and a generation of its content was posted only after that. Then either the
submitter was frozen when it should have written, or the hub was later than the grace. What was posted before the
listings, and not found by them, is a finding.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime

from tests.chaos.evidence import Bought, Evidence, Incident, LogLine
from tests.chaos.findings import FROZEN, LATE, Excused, Finding
from tests.chaos.schedule import FaultKind
from tests.chaos.traffic import Asked

GIVEN_UP = "not at the hub in"  # so many complete listings: submitted again, or ended if it is to be stopped
LOOK_S = 2.0  # a listing begins this long before the line that tells its outcome, at the most
THAW_S = 3.0  # what a process that wakes up has in its hands is written within this time


def purchase_faults(evidence: Evidence) -> tuple[list[Finding], list[Excused]]:
    """Findings, and duplicates that are excused."""
    wanted: dict[str, list[Asked]] = defaultdict(list)
    for request in evidence.asked:
        wanted[request.prompt].append(request)
    bought: dict[str, list[Bought]] = defaultdict(list)
    for generation in evidence.bought:
        bought[generation.prompt].append(generation)
    owners = {row.generation_id: row.request_id for row in evidence.outputs if row.generation_id is not None}
    findings: list[Finding] = []
    excused: list[Excused] = []
    for prompt in wanted.keys() | bought.keys():
        found, let = _of_one_content(wanted[prompt], bought[prompt], owners, evidence)
        findings += found
        excused += let
    return [*findings, *_wrongly_told(owners, evidence)], excused


def _wrongly_told(owners: dict[str, str], evidence: Evidence) -> Iterator[Finding]:
    """What the service took for nobody's (and may have ended at the hub), and is an output all the same."""
    for line in evidence.log:
        if line.event in ("generation.unowned", "generation.surplus_cancelled"):
            for generation_id in _ids(line):
                if generation_id in owners:
                    detail = f"{line.event} by {line.replica} at {_clock(line.at)}, of {owners[generation_id]}"
                    yield Finding("wrongly told", generation_id, detail)


def _ids(line: LogLine) -> list[str]:
    told = line.fields.get("generation_id", [])
    return [told] if isinstance(told, str) else list(told)


def _of_one_content(
    wanted: Sequence[Asked], generations: Sequence[Bought], owners: dict[str, str], evidence: Evidence
) -> tuple[list[Finding], list[Excused]]:
    """Requests of the same content (most often one), and what was bought of it."""
    if not wanted:
        return [Finding("bought for nobody", g.generation_id, "its prompt was not asked for") for g in generations], []
    members = [request.request_id for request in wanted]
    least, most = sum(request.least for request in wanted), sum(request.num_generations for request in wanted)
    findings: list[Finding] = []
    excused: list[Excused] = []
    if len(generations) < least:
        detail = f"{len(generations)} generations bought, {least} asked for"
        findings.append(Finding("not bought", ", ".join(members), detail))
    unowned = [generation for generation in generations if generation.generation_id not in owners]
    for generation in sorted(unowned, key=lambda one: one.posted_at):
        told = _explain(generation, generations, members, owners, evidence)
        if isinstance(told, Excused):
            excused.append(told)
        else:
            kind = "bought twice" if len(generations) > most else "unowned"
            findings.append(Finding(kind, generation.generation_id, f"for {', '.join(members)}: {told}"))
    if len(generations) - len(unowned) > most:
        detail = f"{len(generations) - len(unowned)} generations are outputs, {most} were asked for"
        findings.append(Finding("bought twice", ", ".join(members), detail))
    return findings, excused


def _explain(
    extra: Bought, generations: Sequence[Bought], members: Sequence[str], owners: dict[str, str], evidence: Evidence
) -> Excused | str:
    """Why there is one too many: an excuse with its proof, or what speaks against one."""
    given_up = [
        line
        for line in evidence.log
        if line.fields.get("was") == "in_doubt"
        and line.fields.get("request_id") in members
        and str(line.fields.get("reason")).startswith(GIVEN_UP)
    ]
    if not given_up:
        return "no listing had given its request up: " + _told(extra)
    for line in given_up:
        request_id = str(line.fields["request_id"])
        its_own = [g for g in generations if g is extra or owners.get(g.generation_id) == request_id]
        if all(generation.posted_at > line.at - LOOK_S for generation in its_own):
            return _excuse(extra, its_own, line, evidence)
    return f"{_told(extra)}, and two listings that began later did not find it"


def _excuse(extra: Bought, its_own: Sequence[Bought], line: LogLine, evidence: Evidence) -> Excused:
    request_id = str(line.fields["request_id"])
    proof = (
        f"{request_id}: given up at {_clock(line.at)} by {line.replica} ({line.fields.get('reason')}); "
        + "; ".join(map(_told, its_own))
    )
    frozen = _frozen_writer(its_own, line, evidence.incidents)
    if frozen is None:
        return Excused(LATE, request_id, extra.generation_id, proof)
    proof += f"; {frozen.replica} frozen {_clock(frozen.began_at)} to {_clock(frozen.ended_at)}"
    unowned = next((other for other in evidence.log if _tells_of(other, extra.generation_id)), None)
    if unowned is not None:
        proof += f"; {unowned.replica} logged generation.unowned at {_clock(unowned.at)}"
    return Excused(FROZEN, request_id, extra.generation_id, proof)


def _frozen_writer(its_own: Sequence[Bought], line: LogLine, incidents: Iterable[Incident]) -> Incident | None:
    """The freeze that began before the request was given up, and after whose end one of the POSTs came at once."""
    for incident in incidents:
        if incident.kind is FaultKind.FREEZE_LEADER and incident.began_at < line.at:
            thawed = incident.ended_at
            if any(thawed <= generation.posted_at <= thawed + THAW_S for generation in its_own):
                return incident
    return None


def _tells_of(line: LogLine, generation_id: str) -> bool:
    return line.event == "generation.unowned" and generation_id in _ids(line)


def _told(generation: Bought) -> str:
    fate = f" ({generation.fate})" if generation.fate else ""
    return f"{generation.generation_id} posted at {_clock(generation.posted_at)}{fate}"


def _clock(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%H:%M:%S.%f")[:-3]
