"""Requests from what was typed and from files: one, or one a line; and ids that are the same when it is run again."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct
from pydantic import ValidationError

from service.cli.submit.models import KnownModel
from service.domain.errors import ConfigurationError
from service.domain.states import Fault
from service.wire.envelope import REQUEST_ID, from_pydantic
from service.wire.json import canonical_bytes, loads
from service.wire.requests import RequestBody

STANDARD_INPUT = "-"
FAULTS_TOLD = 3

Body = dict[str, Any]
LookUp = Callable[[str], KnownModel]


class Common(Struct, frozen=True):
    """What was typed for every request; a line of a file that says otherwise counts, but for `parameters`."""

    fields: Mapping[str, Any]
    parameters: Mapping[str, Any]
    batch: str = ""


def read_input(file: Path) -> Body:
    """The parameters in a JSON file. ConfigurationError."""
    try:
        values = loads(_text(file).encode())
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"--input cannot be read as JSON: {error}.") from error
    if not isinstance(values, dict):
        raise ConfigurationError("--input must be a JSON object of parameters.")
    return values


def read_params(params: Sequence[str]) -> Body:
    """`name=value` pairs; a value is read as JSON where it is JSON, else as text. ConfigurationError."""
    values: Body = {}
    for pair in params:
        name, separator, value = pair.partition("=")
        if not separator or not name:
            raise ConfigurationError("--param takes name=value.")
        try:
            values[name] = json.loads(value)
        except ValueError:
            values[name] = value
    return values


def read_lines(file: Path, common: Common) -> dict[str, Body]:
    """A request for each line, by what to call the line: a whole request (it has `input`), or its parameters alone.

    An id that is not given comes from the content, the batch's name, and how many lines before have the same content:
    so the same file sends the same ids, however often and from whatever place it is sent, and none is paid for twice.
    ConfigurationError names the line.
    """
    bodies, seen, places = dict[str, Body](), dict[bytes, int](), dict[str, str]()
    for place, document in _documents(file):
        body = _body(document, common)
        content = _content(body, place)
        seen[content] = seen.get(content, 0) + 1
        request_id = body.setdefault("request_id", _derived(content, seen[content], common.batch))
        if not isinstance(request_id, str) or not REQUEST_ID.fullmatch(request_id):
            told = "request_id must be 1 to 128 characters out of A-Z a-z 0-9 . _ : -"
            raise ConfigurationError(f"{place}: {told}. Nothing was sent.")
        if request_id in places:
            raise ConfigurationError(f"{place}: it has the request_id of {places[request_id]}. Nothing was sent.")
        places[request_id] = place
        bodies[place] = body
    if not bodies:
        raise ConfigurationError(f"--from-file {file}: there is no request in it.")
    return bodies


def check(bodies: Mapping[str, Body], known: LookUp) -> None:
    """Judges all by their shape and by their models' schemas. ConfigurationError tells the first faults."""
    told = []
    for place, body in bodies.items():
        if text := _fault_of(body, known):
            told.append(f"{place}: {text}" if place else text)
    if told:
        more = f" (and {len(told) - FAULTS_TOLD} more)" if len(told) > FAULTS_TOLD else ""
        raise ConfigurationError(f"{'; '.join(told[:FAULTS_TOLD])}{more}. Nothing was sent.")


def _fault_of(body: Body, known: LookUp) -> str:
    try:
        RequestBody.model_validate(body)
    except ValidationError as error:
        return _told(from_pydantic("The request is not valid.", error))
    fault = known(body["model"]).judge(body["input"])
    return "" if fault is None else _told(fault)


def _told(fault: Fault) -> str:
    details = "; ".join(f"{item['path']}: {str(item['message']).removesuffix('.')}" for item in fault.details)
    return f"{fault.code.value}: {details or fault.message.removesuffix('.')}"


def _documents(file: Path) -> Iterator[tuple[str, Body]]:
    try:
        text = _text(file)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"--from-file cannot be read: {error}.") from error
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        place = f"--from-file {file}, line {number}"
        try:
            document = loads(line.encode())
        except ValueError as error:
            raise ConfigurationError(f"{place}: it is not JSON: {error}. Nothing was sent.") from error
        if not isinstance(document, dict):
            raise ConfigurationError(f"{place}: it must be a JSON object. Nothing was sent.")
        yield place, document


def _body(document: Body, common: Common) -> Body:
    whole = isinstance(document.get("input"), dict)
    given = document if whole else {"input": document}
    body = {**common.fields, **given}
    body["input"] = {**given["input"], **common.parameters}
    return body


def _content(body: Body, place: str) -> bytes:
    """What idempotency compares, in one spelling."""
    names = ("model", "input", "num_generations", "target_namespace")
    try:
        return canonical_bytes({name: body.get(name) for name in names})
    except (ValueError, TypeError) as error:
        raise ConfigurationError(f"{place}: its content cannot be kept exactly: {error}. Nothing was sent.") from error


def _derived(content: bytes, occurrence: int, batch: str) -> str:
    mark = f"{batch}\n{occurrence}\n".encode()
    return "batch-" + hashlib.sha256(mark + content).hexdigest()[:32]


def _text(file: Path) -> str:
    return sys.stdin.read() if str(file) == STANDARD_INPUT else file.read_text("utf-8")
