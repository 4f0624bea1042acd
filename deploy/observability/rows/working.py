"""Is it working? The figures that should be what they always are, and what comes and goes."""

from __future__ import annotations

from deploy.observability.queries import Figure, Panel, Query, Row, of, or_zero, rate
from deploy.observability.rows.legends import GREEN, NONE, ORANGE, RED, REPLICA

ONE = ((None, RED), (1, GREEN), (2, RED))
FAILED = rate("drover_requests_total", matchers='state="failed"')
ENDED = rate("drover_requests_total", matchers='state=~"succeeded|failed|cancelled|expired"')
WAITING = of("drover_backlog_oldest_age_seconds", 'state="accepted"')

WORKING = Row(
    "Is it working?",
    [
        Figure(
            "Leads",
            "none",
            "Exactly one replica leads. 0 for more than ten seconds: nothing is published. 2: on which databases?",
            Query(f"sum({of('drover_leading')})"),
            ONE,
        ),
        Figure(
            "Hears the hub",
            "none",
            "Exactly one replica holds the hub's stream. 0: ends are found by sweeps only, up to a minute late.",
            Query(f"sum({of('drover_stream_connected')})"),
            ((None, ORANGE), (1, GREEN), (2, RED)),
        ),
        Figure(
            "Take requests",
            "none",
            "How many replicas take requests from the broker; all that run, normally. 0: they wait at the broker.",
            Query(f"sum({of('drover_consuming')})"),
            ((None, RED), (1, ORANGE), (2, GREEN)),
        ),
        Figure(
            "Pauses of submission",
            "none",
            "Reasons for which nothing is sent to the hub just now. Which: the panel Submission paused, and /readyz.",
            Query(or_zero(f"count(max by (scope, reason) ({of('drover_submission_paused')}) == 1)")),
            NONE,
        ),
        Figure(
            "Oldest not submitted",
            "s",
            "How long the oldest accepted request has waited for its turn, looked at every 10 s.",
            Query(or_zero(f"max({WAITING})")),
            ((None, GREEN), (60, ORANGE), (600, RED)),
        ),
        Figure(
            "Oldest event",
            "s",
            "How long the oldest event has waited for the broker's confirm, looked at every 10 s.",
            Query(or_zero(f"max({of('drover_outbox_oldest_age_seconds')})")),
            ((None, GREEN), (15, ORANGE), (60, RED)),
        ),
        Figure(
            "Failed",
            "percentunit",
            "Share of the requests that ended just now and have failed. What is usual, your models and prompts decide.",
            Query(or_zero(f"({FAILED} or vector(0)) / ({ENDED} > 0)")),
            ((None, GREEN), (0.05, ORANGE), (0.2, RED)),
            decimals=1,
        ),
        Figure(
            "Replicas",
            "none",
            "How many run, by version. Two versions side by side only while a new one is rolled out.",
            Query(f"count by (version) ({of('drover_build_info')})", "{{version}}"),
            ((None, ORANGE), (2, GREEN)),
        ),
    ],
    [
        Panel(
            "Requests by state",
            "reqps",
            "Requests that enter each state, a second. Accepted and the ends keep together; where accepted runs ahead, "
            "the second row says where they are.",
            [Query(rate("drover_requests_total", "state"), "{{state}}")],
        ),
        Panel(
            "Failed share of the ends",
            "percentunit",
            "A level that rises: one model, one team or the hub. request.failed in the log has the code.",
            [Query(f"({FAILED} or vector(0)) / ({ENDED} > 0)", "failed")],
        ),
        Panel(
            "Events published",
            "reqps",
            "Events that the broker confirmed, a second, by type. Flat at zero while requests move: nobody publishes.",
            [Query(rate("drover_events_published_total", "type"), "{{type}}")],
        ),
        Panel(
            "Rejected, undeliverable",
            "reqps",
            "Messages that were not accepted, by code, and replies whose queue was gone. A step up is a team's new "
            "release, or the hub's new schema of a model.",
            [
                Query(rate("drover_rejections_total", "code"), "{{code}}"),
                Query(rate("drover_replies_undeliverable_total"), "reply undeliverable"),
            ],
        ),
        Panel(
            "Who leads, who takes requests",
            "none",
            "The lead moves within ten seconds, and rests otherwise. A replica that takes nothing cannot reach its "
            "database or broker.",
            [
                Query(f"max by (instance) ({of('drover_leading')})", f"{REPLICA} leads"),
                Query(f"max by (instance) ({of('drover_consuming')})", f"{REPLICA} takes requests"),
            ],
        ),
        Panel(
            "Followers",
            "none",
            "Clients of GET /v1/events at each replica, which takes 5,000.",
            [Query(f"max by (instance) ({of('drover_feed_followers')})", REPLICA)],
        ),
    ],
)
