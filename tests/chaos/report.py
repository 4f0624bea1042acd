"""The report of a campaign, as text for people. Pure."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime

from tests.chaos.campaign import Campaign, Played, faults_of
from tests.chaos.checker import Verdict
from tests.chaos.recovery import Recovery, recoveries
from tests.chaos.streams import overlaps

SHOWN = 20  # of each kind of finding


def report(campaign: Campaign, played: Played, verdict: Verdict) -> str:
    """Everything on a few screens: the verdict first, then what was done, counted and measured."""
    return "\n".join(
        (
            *_head(campaign, played, verdict),
            *_section("Faults done", _incidents(campaign, played)),
            *_section("Counts", _table(verdict.counts.items())),
            *_section("Recovery, seconds (median, worst, times)", _recoveries(recoveries(played.evidence))),
            *_section("Two streams at once", _overlaps(played)),
            *_section(
                "Excused duplicates, with their proof", (f"  {one.cause}: {one.proof}" for one in verdict.excused)
            ),
            *_section("Warnings and errors in the logs", _warnings(played)),
            *_section("Findings", _findings(verdict)),
            "",
        )
    )


def repeat(campaign: Campaign) -> str:
    """The command that plays the same again."""
    options = campaign.options
    values = {
        "seed": campaign.seed,
        "requests": campaign.requests,
        "seconds": options.seconds,
        "replicas": campaign.replicas,
        "share": campaign.share,
        "kills": options.kills,
        "freezes": options.freezes,
        "broker-kills": options.broker_kills,
        "database-restarts": options.database_restarts,
    }
    what = "soak" if campaign.waves > 1 else "campaign"
    return f"python -m tests.chaos {what} " + " ".join(f"--{name} {value:g}" for name, value in values.items())


def _head(campaign: Campaign, played: Played, verdict: Verdict) -> Iterator[str]:
    kinds = Counter(finding.kind for finding in verdict.findings)
    result = "nothing found" if not kinds else ", ".join(f"{count} x {kind}" for kind, count in sorted(kinds.items()))
    rate = campaign.requests / played.ended_s if played.ended_s else 0.0
    yield f"Seed {campaign.seed}: {result}"
    yield f"  to repeat it: {repeat(campaign)}"
    yield (
        f"  {campaign.requests} requests, sent within {played.traffic_s:.1f} s, the last end heard after "
        f"{played.ended_s:.1f} s ({rate:.0f}/s); {campaign.replicas} replicas at a time; "
        f"{played.unknown_publishes} publishes of unknown outcome, sent again"
    )
    yield (
        f"  {os.cpu_count()} cores; the machine's load {played.load[0]:.1f} before, {played.load[1]:.1f} after "
        "(far above the number of cores, times say little)"
    )


def _section(title: str, lines: Iterator[str]) -> Iterator[str]:
    told = list(lines)
    if told:
        yield f"\n{title}"
        yield from told


def _table(rows: Iterable[tuple[str, int]]) -> Iterator[str]:
    for name, value in rows:
        yield f"  {name:<64} {value:>8}"


def _incidents(campaign: Campaign, played: Played) -> Iterator[str]:
    """What was done of what was planned; a cut finds no stream while there is none."""
    planned = Counter(fault.kind for wave in range(campaign.waves) for fault in faults_of(campaign, wave))
    done = Counter(incident.kind for incident in played.evidence.incidents)
    yield from _table((f"{kind}, of {planned[kind]} planned", done[kind]) for kind in sorted(planned))
    yield from _table((f"hub: {name}", count) for name, count in sorted(played.evidence.strikes.items()))


def _recoveries(found: Sequence[Recovery]) -> Iterator[str]:
    for one in found:
        missing = f"  NEVER SEEN {one.missing} times" if one.missing else ""
        if one.seconds:
            yield (f"  {one.what:<64} {one.median:8.2f} {max(one.seconds):8.2f} {len(one.seconds):6d}{missing}")
        else:
            yield f"  {one.what:<64} {missing}"


def _overlaps(played: Played) -> Iterator[str]:
    for overlap in overlaps(played.evidence):
        at = datetime.fromtimestamp(overlap.began_at, UTC).strftime("%H:%M:%S")
        yield f"  {at}: {overlap.ended_at - overlap.began_at:.2f} s, {overlap.why or 'NOT ALLOWED'}"


def _warnings(played: Played) -> Iterator[str]:
    counts = Counter((line.level, line.event) for line in played.evidence.log if line.level != "info")
    yield from _table(sorted((f"{level} {event}", count) for (level, event), count in counts.items()))


def _findings(verdict: Verdict) -> Iterator[str]:
    shown: Counter[str] = Counter()
    for finding in verdict.findings:
        shown[finding.kind] += 1
        if shown[finding.kind] <= SHOWN:
            yield f"  {finding.kind}: {finding.subject}: {finding.detail}"
    for kind, count in shown.items():
        if count > SHOWN:
            yield f"  {kind}: and {count - SHOWN} more"
