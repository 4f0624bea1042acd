"""A request as the API shows it: the `data` of its events, and what only its row says."""

from __future__ import annotations

from service.domain.stored import StoredRequest
from service.wire.events import event_data


def generation(stored: StoredRequest) -> dict[str, object]:
    """JSON, but for times, which `dumps` writes."""
    request = stored.request
    return {
        **event_data(request),
        "sequence": request.sequence,
        "num_generations": request.num_generations,
        "target_namespace": request.target_namespace,
        "priority": stored.priority,
        "deadline": stored.deadline,
        "source": request.source,
    }
