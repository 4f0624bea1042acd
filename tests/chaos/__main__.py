"""The campaigns, from the command line.

    python -m tests.chaos [--seed N ...] [--requests N] [--seconds S] ...    campaigns, one for each seed
    python -m tests.chaos soak [--requests N] [--seconds S]                 memory and connections under long traffic

Exit code 0: every promise held; 1: findings, or no end in time. Reports and logs are left in `--out`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import signal
import sys
from pathlib import Path

from service.telemetry import configure_logging
from tests.chaos.campaign import Campaign, play
from tests.chaos.checker import check
from tests.chaos.report import report
from tests.chaos.schedule import Options
from tests.chaos.stage import servers_up

REPOSITORY = Path(__file__).resolve().parents[2]
SEEDS = (1, 2, 3)
LIMIT_S = 900.0  # for one campaign


async def campaigns(options: argparse.Namespace) -> int:
    """Plays all of them; how many had findings."""
    failed = 0
    async with servers_up(options.out / "servers") as stack:
        for seed in options.seed or SEEDS:
            campaign = Campaign(
                seed=seed,
                requests=options.requests,
                replicas=options.replicas,
                options=Options(
                    seconds=options.seconds,
                    kills=options.kills,
                    freezes=options.freezes,
                    broker_kills=options.broker_kills,
                    database_restarts=options.database_restarts,
                ),
            )
            folder = options.out / f"seed-{seed}"
            async with asyncio.timeout(LIMIT_S):
                played = await play(stack, campaign, folder)
            verdict = check(played.evidence)
            text = report(campaign, played, verdict)
            (folder / "report.txt").write_text(text)
            print(text, flush=True)  # noqa: T201 - the report
            failed += bool(verdict.findings)
    return failed


def parse(arguments: list[str]) -> argparse.Namespace:
    """The options; the defaults are those of the campaign that has to hold."""
    campaign, options = Campaign(seed=0), Options()
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("what", nargs="?", choices=["campaign", "soak"], default="campaign")
    parser.add_argument("--seed", type=int, action="append", help="may be given several times; else 1, 2 and 3")
    parser.add_argument("--requests", type=int, default=campaign.requests)
    parser.add_argument("--replicas", type=int, default=campaign.replicas)
    parser.add_argument("--seconds", type=float, default=options.seconds, help="over which the requests are sent")
    parser.add_argument("--kills", type=int, default=options.kills)
    parser.add_argument("--freezes", type=int, default=options.freezes)
    parser.add_argument("--broker-kills", type=int, default=options.broker_kills)
    parser.add_argument("--database-restarts", type=int, default=options.database_restarts)
    parser.add_argument("--out", type=Path, default=REPOSITORY / ".local" / "chaos", help="folder of what is left")
    return parser.parse_args(arguments)


async def run(options: argparse.Namespace) -> int:
    """Ends in good order on SIGTERM, too: nothing that was started is left behind."""
    configure_logging("json", logging.CRITICAL)  # the clients' libraries are loud when a broker dies
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return 1 if await campaigns(options) else 0


def main() -> int:
    """The exit code."""
    with contextlib.suppress(KeyboardInterrupt):
        return asyncio.run(run(parse(sys.argv[1:])))
    return 1


if __name__ == "__main__":
    sys.exit(main())
