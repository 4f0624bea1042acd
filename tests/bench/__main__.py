"""How fast drover is, beside a floor that does nothing but the work, on servers of its own.

    python -m tests.bench                        A, B, D, E and O, drover and the floor, one run each: five minutes
    python -m tests.bench --scenarios D -r 3     three runs of the long burst
    python -m tests.bench --scenarios CF         20,000 and 100,000 in flight
    python -m tests.bench --scenarios ABGH -r 5  growth: beside 1,000,000 ended requests (R: with ids that rise)
    python -m tests.bench --scenarios '' --rates 100 200 400 600 800
                                                 the knee: latency over throughput
    python -m tests.bench.idle                   from the hub's end to the event, one request at a time
    python -m tests.bench.in_flight              starting, and closing a gap, with many in flight
    python -m tests.bench.at_rest                what a replica costs that has nothing to do
    python -m tests.bench.tracing                what the spans of a request cost
    python -m tests.bench.replicas               one, two and three replicas: CPU by process, and where the ceilings are

Results are left in the folder --out: a JSON file, a table, pictures, logs. Nothing in it is asserted: machines differ.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import signal
from pathlib import Path
from typing import Any

import uvloop

from service.telemetry import configure_logging
from tests.bench.report import plot_latency, plot_throughput, ratios, table
from tests.bench.run import CONTESTANTS, file_name, run
from tests.bench.scenarios import SCENARIOS, USUAL, steady
from tests.chaos.stage import servers_up

REPOSITORY = Path(__file__).resolve().parents[2]


async def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Every scenario for every contestant, in turns, so that both meet the machine as it is."""
    runs: list[dict[str, Any]] = []
    async with servers_up(options.out / "servers") as stack:
        for scenario in [*(SCENARIOS[letter] for letter in options.scenarios), *map(steady, options.rates)]:
            for _ in range(options.repeat):
                for contestant in options.contestants:
                    runs.append(await run(stack, scenario, contestant, options.out))
                    print(table(runs[-1:]).splitlines()[-1], flush=True)  # noqa: T201 - the report
    return runs


def leave(runs: list[dict[str, Any]], folder: Path) -> None:
    """Writes everything down."""
    (folder / "runs.json").write_text(json.dumps(runs, indent=1) + "\n", "utf-8")
    (folder / "table.md").write_text(f"{table(runs)}\n\n{ratios(runs)}\n", "utf-8")
    for letter in dict.fromkeys(done["scenario"]["letter"] for done in runs):
        own = [done for done in runs if done["scenario"]["letter"] == letter]
        plot_throughput(own, folder / f"{file_name(letter)}-throughput.svg")
        plot_latency(own, folder / f"{file_name(letter)}-latency.svg")


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--scenarios", default=USUAL, help="; ".join(f"{s.letter}: {s.words}" for s in SCENARIOS.values())
    )
    parser.add_argument("--rates", nargs="*", type=float, default=[], help="steady loads besides, requests a second")
    parser.add_argument("-r", "--repeat", type=int, default=1, help="runs of each")
    parser.add_argument("--contestants", nargs="+", choices=list(CONTESTANTS), default=list(CONTESTANTS))
    parser.add_argument("--out", type=Path, default=REPOSITORY / ".local" / "bench")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    configure_logging("json", logging.CRITICAL)
    with contextlib.suppress(ValueError):  # ended by SIGTERM, it still stops its servers
        signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGINT))
    runs = uvloop.run(measure(options))
    leave(runs, options.out)
    print(f"\n{table(runs)}\n\n{ratios(runs)}\n\n{options.out}")  # noqa: T201


if __name__ == "__main__":
    main()
