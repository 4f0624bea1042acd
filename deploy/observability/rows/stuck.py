"""Where is it stuck? From what waits to the hub, the stream, the outbox and the database."""

from __future__ import annotations

from deploy.observability.queries import Panel, Query, Row, mean, of, quantile, rate

STUCK = Row(
    "Where is it stuck?",
    [],
    [
        Panel(
            "Under way, by state",
            "short",
            "Requests that have not ended. accepted grows: they are not sent fast enough. submitted grows: the hub is "
            "slower than what comes. in_doubt stays: the hub's lists cannot be read.",
            [Query(f"max by (state) ({of('drover_backlog_requests')})", "{{state}}")],
            stacked=True,
        ),
        Panel(
            "Oldest of each state",
            "s",
            "Age since it was received, looked at every 10 s. A line that rises for minutes is one "
            "request that is stuck there.",
            [Query(f"max by (state) ({of('drover_backlog_oldest_age_seconds')})", "{{state}}")],
        ),
        Panel(
            "Generations at the hub",
            "short",
            "Generations that have not ended. Flat at DROVER_MAX_IN_FLIGHT: that is the limit.",
            [Query(f"max({of('drover_generations_in_flight')})", "in flight")],
        ),
        Panel(
            "Stages, median",
            "s",
            "Where the time goes: waiting (for the claim), submitting (the POST), generating (the hub), publishing. "
            "Only generating should be long.",
            [Query(quantile(0.5, "drover_stage_duration_seconds", "stage"), "{{stage}}")],
        ),
        Panel(
            "Stages, 99 %",
            "s",
            "The slow end of the same. waiting far above its median: bursts, a limit, or a pause.",
            [Query(quantile(0.99, "drover_stage_duration_seconds", "stage"), "{{stage}}")],
        ),
        Panel(
            "Submission paused",
            "none",
            "1 while nothing of a scope is sent, by reason. limited: the hub throttles. failing: it fails. The others "
            "want somebody.",
            [Query(f"max by (scope, reason) ({of('drover_submission_paused')})", "{{scope}} {{reason}}")],
        ),
        Panel(
            "Calls to the hub",
            "reqps",
            "By call and outcome, a second. Anything but ok that lasts is the hub's, or ours to slow down (throttled).",
            [Query(rate("drover_hub_calls_total", "call, outcome"), "{{call}} {{outcome}}")],
        ),
        Panel(
            "Calls to the hub, 99 %",
            "s",
            "How long the slow ones take. submit near DROVER_SUBMIT_TIMEOUT_S: doubts are next.",
            [Query(quantile(0.99, "drover_hub_call_duration_seconds", "call"), "{{call}}")],
        ),
        Panel(
            "POSTs, 99 % by outcome",
            "s",
            "The same for POSTs alone, by what became of them.",
            [Query(quantile(0.99, "drover_submit_duration_seconds", "outcome"), "{{outcome}}")],
        ),
        Panel(
            "Silence of the stream",
            "s",
            "Seconds since the hub said anything. A saw of 15 s is an idle hub; above 30, something holds it back.",
            [Query(f"max({of('drover_stream_silence_seconds')})", "silence")],
        ),
        Panel(
            "Gaps of the stream",
            "s",
            "Seconds a minute in which nobody listened, told when it is over. What ends meanwhile is found by a sweep.",
            [Query(f"60 * {rate('drover_stream_gap_seconds_sum')}", "not heard a minute")],
        ),
        Panel(
            "Ends, by how they were learned",
            "reqps",
            "stream is the rule; look is what sweeps found: after gaps, or where the hub does not tell.",
            [Query(rate("drover_completions_total", "by"), "{{by}}")],
        ),
        Panel(
            "Doubts",
            "reqps",
            "POSTs whose outcome was unknown, as they are opened (by cause) and settled (by outcome). More opened than "
            "settled: the lists do not tell.",
            [
                Query(rate("drover_doubts_opened_total", "cause"), "opened: {{cause}}"),
                Query(rate("drover_doubts_total", "outcome"), "settled: {{outcome}}"),
            ],
        ),
        Panel(
            "Outbox",
            "short",
            "Events that are stored and not confirmed, looked at every 10 s. A few are on their way at any moment.",
            [Query(f"max({of('drover_outbox_events')})", "events")],
        ),
        Panel(
            "Outbox, oldest",
            "s",
            "Age of the oldest event, looked at every 10 s. A line that rises: the "
            "broker blocks, or one event cannot be published.",
            [Query(f"max({of('drover_outbox_oldest_age_seconds')})", "oldest")],
        ),
        Panel(
            "Batches, size",
            "short",
            "Items done in one commit, on average. Near 500 for minutes: that step is the limit.",
            [Query(mean("drover_batch_size", "step"), "{{step}}")],
        ),
        Panel(
            "Batches, 99 %",
            "s",
            "Time for one commit. Tens of milliseconds; all steps slower at once is the database.",
            [Query(quantile(0.99, "drover_batch_duration_seconds", "step"), "{{step}}")],
        ),
        Panel(
            "Batches that failed",
            "reqps",
            "A second, by step; they are tried again. One step alone: batch.broke in the log. All: the database.",
            [Query(rate("drover_batch_failures_total", "step"), "{{step}}")],
        ),
        Panel(
            "Sweeps",
            "s",
            "How long a sweep takes, on average. It should stay far below DROVER_RECONCILE_INTERVAL_S.",
            [Query(mean("drover_sweep_duration_seconds"), "sweep")],
        ),
        Panel(
            "Asked for one by one",
            "reqps",
            "Generations that the hub's list left out. Much more than gaps explain: the list is cut short.",
            [Query(rate("drover_generations_fetched_total"), "fetched")],
        ),
        Panel(
            "Ends of the stream, changes of the lead",
            "none",
            "In each interval. Both rest, but for a roll-out.",
            [
                Query(f"sum(increase({of('drover_stream_reconnects_total')}[$__rate_interval]))", "stream ended"),
                Query(f"sum(increase({of('drover_leadership_taken_total')}[$__rate_interval]))", "lead taken"),
            ],
        ),
    ],
)
