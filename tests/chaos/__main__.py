"""The campaigns and the soak, from the command line.

    python -m tests.chaos             campaigns of the seeds 1, 2 and 3, then the soak
    python -m tests.chaos campaign    the campaigns alone; --seed and the other options say which
    python -m tests.chaos soak        the soak alone: memory and connections under long traffic

Exit code 0: every promise held; 1: findings, or no end in time. Reports and logs are left in the folder --out.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import signal
import sys
from dataclasses import replace
from pathlib import Path

from deploy.local.stack import Stack
from service.telemetry import configure_logging
from tests.chaos.campaign import Campaign, play
from tests.chaos.checker import check
from tests.chaos.report import report
from tests.chaos.schedule import Options
from tests.chaos.soak import REQUESTS, SECONDS, Gauges, figures, rising, soak
from tests.chaos.stage import servers_up

REPOSITORY = Path(__file__).resolve().parents[2]
SEEDS = (1, 2, 3)
USUAL = Campaign(seed=0)
LIMIT_S = 900.0  # for one campaign


async def campaigns(options: argparse.Namespace, stack: Stack) -> int:
    """Plays one for each seed; how many had findings."""
    failed = 0
    for seed in options.seed or SEEDS:
        campaign = Campaign(
            seed=seed,
            requests=options.requests or USUAL.requests,
            replicas=options.replicas,
            share=options.share,
            options=Options(
                seconds=options.seconds or USUAL.options.seconds,
                kills=options.kills,
                freezes=options.freezes,
                broker_kills=options.broker_kills,
                database_restarts=options.database_restarts,
            ),
        )
        failed += await one(options.out / f"seed-{seed}", stack, campaign)
    return failed


async def soaked(options: argparse.Namespace, stack: Stack) -> int:
    """Plays the soak; 1 when there were findings."""
    seed = (options.seed or SEEDS)[0]
    campaign = soak(seed, options.requests or REQUESTS, options.seconds or SECONDS, options.share)
    return await one(options.out / "soak", stack, campaign, Gauges())


async def one(folder: Path, stack: Stack, campaign: Campaign, gauges: Gauges | None = None) -> bool:
    """Plays, judges and tells; whether there were findings."""
    async with asyncio.timeout(LIMIT_S):
        played = await play(stack, campaign, folder, gauges.measure if gauges else None)
    verdict = check(played.evidence)
    if gauges is not None:
        trends = gauges.trends()
        verdict = replace(verdict, findings=(*verdict.findings, *rising(trends)))
        print(figures(trends), flush=True)  # noqa: T201 - the report
    text = report(campaign, played, verdict)
    (folder / "report.txt").write_text(text)
    print(text, flush=True)  # noqa: T201 - the report
    return bool(verdict.findings)


def parse(arguments: list[str]) -> argparse.Namespace:
    """The options; the defaults are those of the campaign that has to hold."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="?", choices=["all", "campaign", "soak"], default="all")
    parser.add_argument("--seed", type=int, action="append", help="may be given several times; else 1, 2 and 3")
    parser.add_argument("--requests", type=int, help=f"{USUAL.requests} in a campaign, {REQUESTS} in the soak")
    parser.add_argument("--seconds", type=float, help="over which the requests are sent")
    parser.add_argument("--replicas", type=int, default=USUAL.replicas, help="in a campaign (%(default)s)")
    parser.add_argument("--share", type=float, default=USUAL.share, help="of each of the hub's faults (%(default)s)")
    for name in ("kills", "freezes", "broker_kills", "database_restarts"):
        usual = getattr(USUAL.options, name)
        parser.add_argument("--" + name.replace("_", "-"), type=int, default=usual, help="in a campaign (%(default)s)")
    parser.add_argument("--out", type=Path, default=REPOSITORY / ".local" / "chaos", help="folder of what is left")
    return parser.parse_args(arguments)


async def run(options: argparse.Namespace) -> int:
    """Ends in good order on SIGTERM, too: nothing that was started is left behind."""
    configure_logging("json", logging.CRITICAL)  # the clients' libraries are loud when a broker dies
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    failed = 0
    async with servers_up(options.out / "servers") as stack:
        if options.what != "soak":
            failed += await campaigns(options, stack)
        if options.what != "campaign":
            failed += await soaked(options, stack)
    return 1 if failed else 0


def main() -> int:
    """The exit code."""
    with contextlib.suppress(KeyboardInterrupt):
        return asyncio.run(run(parse(sys.argv[1:])))
    return 1


if __name__ == "__main__":
    sys.exit(main())
