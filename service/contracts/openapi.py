"""The HTTP API as an OpenAPI 3.1 document. A test sends what it allows and forbids, and holds the answers to it."""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import models_json_schema

from service.contracts.answers import ANSWERS, STATUSES
from service.contracts.examples import examples
from service.contracts.schemas import components, in_order, tidied
from service.wire.envelope import CLOUDEVENTS_JSON, REQUEST_ID

Node = dict[str, Any]
SCHEMAS = "#/components/schemas/"
VERSION = "1"
JSON, PROBLEM, STREAM = "application/json", "application/problem+json", "text/event-stream"
PROBLEMS = {
    400: "The call is not HTTP as this server reads it.",
    401: "No token, or none that is valid.",
    403: "Without tokens set the API answers on a loopback host only; and no page of another site may change anything.",
    404: "Not known.",
    408: "The body did not come in time.",
    409: "The id is known with other content; the first request is untouched.",
    413: "The body is longer than 256 KiB.",
    415: "The body is not JSON by its type.",
    422: "What was sent is refused, with what is wrong.",
    503: "The database, the broker or the hub is away. What was sent may have arrived: send it again, same id.",
}
GUARD = (401, 403, 422, 503)
INTRODUCTION = (
    "What a platform may do without AMQP: send requests, look at them, end them, follow their events. Requests and "
    "cancels go over the bus like everybody's; the messages and events are those of the AsyncAPI document."
)


def document() -> Node:
    """The whole document as a JSON value."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "drover",
            "version": VERSION,
            "description": INTRODUCTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/", "description": "The replica that answers; any other answers the same."}],
        "tags": [{"name": "generations"}, {"name": "events"}, {"name": "models"}, {"name": "operation"}],
        "security": [{"token": []}, {}],
        "paths": {
            "/v1/generations": {"get": _list(), "post": _send()},
            "/v1/generations/{request_id}": {"get": _find(), "delete": _cancel(), "parameters": [_request_id("path")]},
            "/v1/events": {"get": _events()},
            "/v1/models": {"get": _models()},
            "/v1/models/{model}": {"get": _model(), "parameters": [_parameter("model", "path", {"type": "string"})]},
            "/healthz": {"get": _health()},
            "/readyz": {"get": _readiness()},
            "/metrics": {"get": _metrics()},
        },
        "components": {
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "One of DROVER_API_TOKENS. Where none is set, a loopback host needs none.",
                }
            },
            "schemas": _schemas(),
            "responses": {f"Problem{status}": _problem(text) for status, text in PROBLEMS.items()},
        },
    }


def _schemas() -> Node:
    _, definitions = models_json_schema(
        [(model, "serialization") for model in ANSWERS], ref_template=SCHEMAS + "{model}"
    )
    answers = {name: in_order(tidied(schema)) for name, schema in definitions["$defs"].items()}
    return dict(sorted({**components(SCHEMAS), **answers}.items()))


# -- generations ------------------------------------------------------------------------------------------------------


def _list() -> Node:
    status = {"type": "string", "enum": STATUSES}
    return _operation(
        "listGenerations",
        "generations",
        "Requests, the newest first",
        "A page costs the same however many requests there are; `cursor` goes on from the page before.",
        {200: _answer("The page.", "GenerationPage")},
        GUARD,
        [
            _parameter("status", "query", status, "Only of this status; `succeeded` includes the partial ones."),
            _parameter("limit", "query", {"type": "integer", "minimum": 1, "maximum": 200, "default": 50}),
            _parameter("cursor", "query", {"type": "string", "pattern": "^[1-9][0-9]{0,17}$"}, "A `next_cursor`."),
        ],
    )


def _send() -> Node:
    shown = {
        name: {"summary": example.title, "value": example.body}
        for name, example in examples().items()
        if example.message in ("generation.request", "generation.request.cloudevents")
    }
    bare = {name: item for name, item in shown.items() if "specversion" not in item["value"]}
    enveloped = {name: item for name, item in shown.items() if name not in bare}
    location = {"Location": {"schema": {"type": "string"}, "description": "Where the request is to be looked at."}}
    wait = {"type": "number", "minimum": 0, "maximum": 60, "default": 0}
    return {
        **_operation(
            "sendGeneration",
            "generations",
            "Ask for a generation",
            "Checked as intake checks a message, put on the bus, and answered when the broker has confirmed it. The "
            "same id with the same content is never paid for twice. The id is `request_id`, or else `Idempotency-Key`.",
            {
                200: {**_answer("It has ended within `wait`.", "Generation"), "headers": location},
                202: {**_answer("It is on the bus, or under way.", "Pending", "Generation"), "headers": location},
            },
            (400, 401, 403, 408, 409, 413, 415, 422, 503),
            [
                _parameter("wait", "query", wait, "Seconds to wait for the end."),
                _parameter("Idempotency-Key", "header", {"type": "string", "pattern": f"^{REQUEST_ID.pattern}$"}),
                _parameter("traceparent", "header", {"type": "string"}, "W3C Trace Context; goes along."),
                _parameter("tracestate", "header", {"type": "string"}, "W3C Trace Context; goes along."),
            ],
        ),
        "requestBody": {
            "required": True,
            "content": {
                JSON: {"schema": _reference("GenerationRequest"), "examples": bare},
                CLOUDEVENTS_JSON: {"schema": _reference("GenerationRequestCloudEvent"), "examples": enveloped},
            },
        },
    }


def _find() -> Node:
    return _operation(
        "getGeneration",
        "generations",
        "A request as it stands",
        "A 404 says why, where a message with this id was not accepted (`code`, `details`).",
        {200: _answer("The request.", "Generation")},
        (404, *GUARD),
    )


def _cancel() -> Node:
    return _operation(
        "cancelGeneration",
        "generations",
        "End a request",
        "It ends when it can: what waits at once, what is at the hub when its outputs have ended there. For an id that "
        "is not known yet it is kept for 24 hours; of one that has ended the terminal event is sent again.",
        {202: _answer("The cancel is on the bus.", "Pending")},
        GUARD,
    )


# -- events and models ------------------------------------------------------------------------------------------------


def _events() -> Node:
    last = {"type": "string", "pattern": r"^[0-9]{1,19}(-[0-9]{1,19}(\.[0-9]{1,19}){0,15})?(:.*)?$"}
    return _operation(
        "followEvents",
        "events",
        "Events as they are published",
        "Server-sent events: `event` is the event's name, `data` the CloudEvent that went to the bus, `id` where to go "
        "on. All events from now on; with `request_id` those of one request, from its beginning. With the "
        "`Last-Event-ID` of an event before, everything after it, however long ago. Each event comes once in a "
        "connection, and may come again after a new one, under another `id`: tell them by the CloudEvent's own. A "
        "client that does not keep up is cut off.",
        {
            200: {
                "description": "The stream; it ends when the replica shuts down.",
                "content": {STREAM: {"schema": {"type": "string"}}},
            }
        },
        GUARD,
        [
            _request_id("query"),
            _parameter("Last-Event-ID", "header", last, "The `id` of the last event that was heard."),
        ],
    )


def _models() -> Node:
    return _operation(
        "listModels",
        "models",
        "The hub's image and video models",
        "As the hub said within the last minute; while it is away, what it said before.",
        {200: _answer("The models.", "ModelList")},
        GUARD,
    )


def _model() -> Node:
    return _operation(
        "getModel",
        "models",
        "A model with the schema of its parameters",
        "`input` of a request is judged by that schema before anything is paid for.",
        {200: _answer("The model.", "ModelDetails")},
        (404, *GUARD),
    )


# -- operation --------------------------------------------------------------------------------------------------------


def _health() -> Node:
    answers = {200: _answer("It does.", "Health"), 503: _answer("A part of it fails again and again.", "Health")}
    return _open("getHealth", "Whether the process works", answers)


def _readiness() -> Node:
    answers = {200: _answer("It does.", "Readiness"), 503: _answer("It does not; with the reasons.", "Readiness")}
    return _open("getReadiness", "Whether the replica takes requests", answers)


def _metrics() -> Node:
    text = {"description": "Prometheus' text format.", "content": {"text/plain": {"schema": {"type": "string"}}}}
    return _open("getMetrics", "Metrics", {200: text})


def _open(name: str, summary: str, answers: dict[int, Node]) -> Node:
    return {**_operation(name, "operation", summary, "Needs no token.", answers, ()), "security": []}


# -- parts ------------------------------------------------------------------------------------------------------------


def _operation(
    name: str,
    tag: str,
    summary: str,
    description: str,
    answers: dict[int, Node],
    problems: tuple[int, ...],
    parameters: list[Node] | None = None,
) -> Node:
    refused = {str(status): {"$ref": f"#/components/responses/Problem{status}"} for status in sorted(problems)}
    answered = {str(status): answer for status, answer in answers.items()}
    head = {"operationId": name, "tags": [tag], "summary": summary, "description": description}
    return {**head, **({"parameters": parameters} if parameters else {}), "responses": {**answered, **refused}}


def _answer(description: str, *schemas: str) -> Node:
    schema = _reference(schemas[0]) if len(schemas) == 1 else {"anyOf": [_reference(name) for name in schemas]}
    return {"description": description, "content": {JSON: {"schema": schema}}}


def _problem(description: str) -> Node:
    return {"description": description, "content": {PROBLEM: {"schema": _reference("Problem")}}}


def _reference(schema: str) -> Node:
    return {"$ref": SCHEMAS + schema}


def _parameter(name: str, where: str, schema: Node, description: str = "") -> Node:
    told = {"description": description} if description else {}
    return {"name": name, "in": where, "required": where == "path", **told, "schema": schema}


def _request_id(where: str) -> Node:
    return _parameter("request_id", where, {"type": "string", "pattern": f"^{REQUEST_ID.pattern}$"})
