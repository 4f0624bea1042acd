"""Errors of the API, as RFC 9457 has them, whatever raised them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from http import HTTPStatus

import structlog
from aiohttp import web

from service.domain.errors import BrokerUnavailableError, ErrorCode, HubRefusedKeyError, TransientError
from service.domain.states import Fault
from service.http.access import Refusal
from service.wire.json import dumps

log = structlog.get_logger(__name__)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
RETRY_AFTER_S = "1"  # of what is away now


class RefusedError(Exception):
    """Ends a handler with a refusal."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.detail)
        self.refusal = refusal


def problem(refused: Refusal) -> web.Response:
    """`application/problem+json`; a 401 says how to authenticate (RFC 6750, section 3), a 503 when to come again."""
    document: dict[str, object] = {
        "type": "about:blank",
        "title": refused.title,
        "status": refused.status,
        "detail": refused.detail,
    }
    if refused.code is not None:
        document |= {"code": refused.code, "details": list(refused.details)}
    headers = {401: {"WWW-Authenticate": "Bearer"}, 503: {"Retry-After": RETRY_AFTER_S}}.get(refused.status, {})
    return web.Response(
        status=refused.status, body=dumps(document), content_type="application/problem+json", headers=headers
    )


def refusal_of(fault: Fault) -> Refusal:
    """What intake would answer with `generation.rejected`: 409 for a conflict, 422 for the rest."""
    if fault.code is ErrorCode.IDEMPOTENCY_CONFLICT:
        return Refusal(409, "Known with other content", fault.message, fault.code.value, fault.details)
    return Refusal(422, "Not accepted", fault.message, fault.code.value, fault.details)


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turns everything that a handler raises into a problem; a defect is logged, and told as nothing but that."""
    try:
        return await handler(request)
    except RefusedError as error:
        return problem(error.refusal)
    except BrokerUnavailableError as error:
        return problem(Refusal(503, "Not confirmed", f"The broker did not confirm it; send it again. {error}"))
    except (TransientError, HubRefusedKeyError) as error:
        return problem(Refusal(503, "Not now", str(error)))
    except web.HTTPException as error:
        answer = problem(Refusal(error.status, HTTPStatus(error.status).phrase, _told(error)))
        answer.headers.update({name: error.headers[name] for name in ("Allow",) if name in error.headers})
        return answer
    except Exception:
        log.exception("http.broke", method=request.method, path=request.match_info.route.resource)
        return problem(Refusal(500, "A defect of drover", "It is in the log; nothing is known to have been done."))


def _told(error: web.HTTPException) -> str:
    match error.status:
        case 404:
            return "There is nothing at this path; GET /openapi.json lists what there is."
        case 405:
            return f"This path takes {error.headers.get('Allow', 'other methods')}."
        case 413:
            return "The body is longer than anything that is taken here."
        case _:
            return error.reason
