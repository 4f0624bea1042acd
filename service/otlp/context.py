"""W3C Trace Context as strings, which is how it is stored and sent, and as the SDK has it."""

from __future__ import annotations

from functools import lru_cache

from opentelemetry.trace import SpanContext, TraceFlags, TraceState

REMEMBERED = 4096  # contexts: a request's is asked for five times, mostly soon after another
LENGTH = 55  # of version 00: two digits, a trace id of 32, a span id of 16, two digits of flags


def sampled(traceparent: str | None) -> bool:
    """Whether the flag is on. Of what intake let in; anything else is not sampled."""
    return traceparent is not None and len(traceparent) == LENGTH and traceparent[-1] in "13579bdf"


@lru_cache(maxsize=REMEMBERED)
def context_of(traceparent: str | None, tracestate: str | None) -> SpanContext | None:
    """The context of a parent elsewhere; None when there is none, or it is not valid (Trace Context, section 3.2)."""
    if traceparent is None or len(traceparent) != LENGTH or traceparent.startswith("ff"):
        return None
    try:
        trace_id, span_id, flags = int(traceparent[3:35], 16), int(traceparent[36:52], 16), int(traceparent[53:], 16)
    except ValueError:
        return None
    state = TraceState.from_header([tracestate]) if tracestate else None
    context = SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(flags), trace_state=state)
    return context if context.is_valid else None


def traceparent_of(context: SpanContext) -> str:
    """The header that names this context as the parent."""
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
