"""What does it cost? The hub's price, and what the replicas take."""

from __future__ import annotations

from deploy.observability.queries import Figure, Panel, Query, Row, increase, of, or_zero, rate
from deploy.observability.rows.legends import GREEN, NONE, ORANGE, REPLICA


def hourly(counter: str) -> str:
    """How fast a counter has risen within an hour, a second."""
    return f"sum(rate({of(counter)}[1h]))"


COSTS = Row(
    "What does it cost?",
    [
        Figure(
            "Dollars an hour",
            "currencyUSD",
            "At the pace of now, by list prices of what the hub took. An estimate: its bill is what counts.",
            Query(or_zero(f"3600 * {rate('drover_cost_dollars_total')}")),
            decimals=2,
        ),
        Figure(
            "Dollars in 24 h",
            "currencyUSD",
            "What the hub took within the last day, by list prices.",
            Query(or_zero(increase("drover_cost_dollars_total", 24))),
            decimals=2,
        ),
        Figure(
            "Dollars a generation",
            "currencyUSD",
            "Of the last hour: what was bought by what has ended. A step: another model, or longer videos.",
            Query(f"{increase('drover_cost_dollars_total', 1)} / {increase('drover_completions_total', 1)}"),
            decimals=3,
        ),
        Figure(
            "Unpriced in 24 h",
            "none",
            "Generations whose price is not known: the costs here are too low by theirs.",
            Query(or_zero(increase("drover_unpriced_generations_total", 24))),
            ((None, GREEN), (1, ORANGE)),
            decimals=0,
        ),
        Figure(
            "Belong to nobody, 24 h",
            "none",
            "Generations paid for that belong to no request. Any is one too many: the runbook of generation.unowned.",
            Query(or_zero(increase("drover_generations_unowned_total", 24))),
            NONE,
            decimals=0,
        ),
        Figure(
            "Cores",
            "none",
            "CPU of all replicas together. One replica uses one core at the most.",
            Query(rate("process_cpu_seconds_total")),
            decimals=2,
        ),
    ],
    [
        Panel(
            "Dollars an hour, by model",
            "currencyUSD",
            "The pace of spending by list prices. Who sends is in the log and in GET /v1/generations, by source.",
            [Query(f"3600 * {rate('drover_cost_dollars_total', 'model')}", "{{model}}")],
            stacked=True,
        ),
        Panel(
            "Dollars a generation",
            "currencyUSD",
            "What was bought within an hour by what ended in it. A step: another model, or longer videos.",
            [Query(f"{hourly('drover_cost_dollars_total')} / {hourly('drover_completions_total')}", "a generation")],
        ),
        Panel(
            "Unpriced, and belonging to nobody",
            "short",
            "Since the replicas started: generations without a price, by model, and those of no request, by cause.",
            [
                Query(f"sum by (model) ({of('drover_unpriced_generations_total')})", "unpriced: {{model}}"),
                Query(f"sum by (cause) ({of('drover_generations_unowned_total')})", "of nobody: {{cause}}"),
            ],
        ),
        Panel(
            "CPU",
            "none",
            "Cores of each replica. The leader takes more; near 1 it is at its limit.",
            [Query(f"sum by (instance) (rate({of('process_cpu_seconds_total')}[$__rate_interval]))", REPLICA)],
        ),
        Panel(
            "Memory",
            "bytes",
            "Resident. 70 to 100 MiB; it follows neither time nor what is in flight.",
            [Query(f"max by (instance) ({of('process_resident_memory_bytes')})", REPLICA)],
        ),
        Panel(
            "Open files",
            "short",
            "Connections and files of each replica: steady, but for followers and callers that wait.",
            [Query(f"max by (instance) ({of('process_open_fds')})", REPLICA)],
        ),
    ],
)
