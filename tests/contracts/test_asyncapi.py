"""The AsyncAPI document: valid by the format's own judges, whole, and about the broker as the service declares it."""

from __future__ import annotations

import copy
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from service.contracts.asyncapi import document
from service.contracts.documents import render
from service.contracts.examples import examples
from service.domain.states import EventName
from service.rabbit.topology import CANCEL_KEY, EXCHANGES, QUEUES, REQUEST_KEY
from tests.support.schemas import nodes

HERE = Path(__file__).parent
MODULES = HERE.parents[1] / ".local" / "node" / "node_modules"
DOCUMENT: dict[str, Any] = document()
OFFICIAL = json.loads((HERE / "asyncapi-3.0.0.json").read_text("utf-8"))


def resolved(reference: str) -> dict[str, Any]:
    assert reference.startswith("#/"), reference
    within = DOCUMENT
    for part in reference.removeprefix("#/").split("/"):
        within = within[part.replace("~1", "/").replace("~0", "~")]
    return within


def amqp(node: dict[str, Any]) -> dict[str, Any]:
    binding: dict[str, Any] = node["bindings"]["amqp"]
    return binding


# -- the format's judges ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def official() -> jsonschema_rs.Validator:
    """The AsyncAPI initiative's schema of the format."""
    return jsonschema_rs.validator_for(OFFICIAL, offline=True, validate_formats=True)


def test_it_fits_the_formats_own_schema(official: jsonschema_rs.Validator) -> None:
    assert [f"{error.instance_path}: {error.message}" for error in official.iter_errors(DOCUMENT)] == []


def test_that_schema_sees_what_does_not_belong(official: jsonschema_rs.Validator) -> None:
    wrong = copy.deepcopy(DOCUMENT)
    wrong["operations"]["receiveRequest"]["action"] = "publish"
    assert not official.is_valid(wrong)
    wrong = copy.deepcopy(DOCUMENT)
    wrong["channels"]["request"]["bindings"]["amqp"]["bindingVersion"] = "9"
    assert not official.is_valid(wrong)


def parsed(path: Path) -> dict[str, Any]:
    """What the official parser says. It is installed by `deploy/local/install.py tools`; without it this fails."""
    assert (MODULES / "@asyncapi" / "parser").is_dir(), f"no @asyncapi/parser in {MODULES}: run `make test`"
    done = subprocess.run(
        ["node", HERE / "parse.cjs", path],
        env={**os.environ, "NODE_PATH": str(MODULES)},
        capture_output=True,
        text=True,
        timeout=100,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def grave(told: dict[str, Any]) -> list[str]:
    """Errors and warnings; that there is a newer version of the format is neither."""
    return [f"{found['path']}: {found['message']}" for found in told["diagnostics"] if found["severity"] <= 1]


def test_the_official_parser_finds_nothing_wrong(tmp_path: Path) -> None:
    file = tmp_path / "asyncapi.yaml"
    file.write_text(render(file.name, DOCUMENT), "utf-8")
    told = parsed(file)
    assert told["parsed"]
    assert grave(told) == []


def test_the_official_parser_sees_a_reference_to_nothing(tmp_path: Path) -> None:
    wrong = copy.deepcopy(DOCUMENT)
    wrong["channels"]["request"]["messages"]["request"]["$ref"] = "#/components/messages/nothing"
    file = tmp_path / "asyncapi.yaml"
    file.write_text(render(file.name, wrong), "utf-8")
    assert grave(parsed(file)) != []


# -- whole ------------------------------------------------------------------------------------------------------------


def test_every_reference_leads_somewhere() -> None:
    references = [node["$ref"] for node in nodes(DOCUMENT) if isinstance(node.get("$ref"), str)]
    assert len(references) > 50
    for reference in references:
        assert resolved(reference) is not None


@pytest.mark.parametrize(
    "draft", ["http://json-schema.org/draft-07/schema#", "https://json-schema.org/draft/2020-12/schema"]
)
@pytest.mark.parametrize("name", [name for name in DOCUMENT["components"]["messages"] if name != "letter"])
def test_every_message_has_examples_that_fit_its_payload(name: str, draft: str) -> None:
    message = DOCUMENT["components"]["messages"][name]
    root = {"$schema": draft, "components": DOCUMENT["components"], "allOf": [message["payload"]]}
    validator = jsonschema_rs.validator_for(root, offline=True, validate_formats=True)
    assert message["examples"]
    for example in message["examples"]:
        assert [error.message for error in validator.iter_errors(example["payload"])] == []
    assert not validator.is_valid({"nothing": "of it"})


def test_every_example_is_shown_once() -> None:
    told = [
        example["name"]
        for message in DOCUMENT["components"]["messages"].values()
        for example in message.get("examples", [])
    ]
    assert sorted(told) == sorted(examples())


def test_an_operation_carries_messages_of_its_channel_only() -> None:
    for operation in DOCUMENT["operations"].values():
        for carrying in filter(None, (operation, operation.get("reply"))):
            channel = carrying["channel"]["$ref"]
            assert {message["$ref"].rpartition("/messages/")[0] for message in carrying["messages"]} == {channel}


def test_requests_are_answered_where_their_reply_to_says() -> None:
    for name in ("receiveRequest", "receiveCancel"):
        operation = DOCUMENT["operations"][name]
        assert operation["reply"]["address"]["location"] == "$message.header#/reply_to"
        for reference in operation["messages"]:
            headers = resolved(resolved(reference["$ref"])["$ref"])["headers"]["properties"]
            assert {"reply_to", "correlation_id", "traceparent", "tracestate"} <= set(headers)
    assert DOCUMENT["channels"]["replies"]["address"] is None


# -- the broker as it is declared -------------------------------------------------------------------------------------


def test_the_exchanges_are_those_that_the_service_declares() -> None:
    told = {}
    for channel in DOCUMENT["channels"].values():
        binding = channel.get("bindings", {}).get("amqp", {})
        exchange = binding.get("exchange") or binding.get("x-exchange")
        if exchange:
            assert (exchange["durable"], exchange["autoDelete"]) == (True, False)
            told[exchange["name"]] = (exchange["type"], exchange.get("x-arguments", {}))
    assert told == {exchange.name: (exchange.kind, exchange.arguments) for exchange in EXCHANGES}


def test_the_queues_and_their_bindings_are_those_that_the_service_declares() -> None:
    told = {}
    for channel in DOCUMENT["channels"].values():
        binding = channel.get("bindings", {}).get("amqp", {})
        queue = binding.get("queue") or binding.get("x-queue")
        if queue:
            assert (queue["durable"], queue["exclusive"], queue["autoDelete"]) == (True, False, False)
            bound = [(item["exchange"], item["routingKey"]) for item in queue["x-bindings"]]
            told[queue["name"]] = (queue["x-arguments"], sorted(bound))
    assert told == {queue.name: (queue.arguments, sorted(queue.bindings)) for queue in QUEUES}


def test_every_routing_key_is_a_channel_and_every_terminal_event_is_mandatory() -> None:
    keys = {channel["address"] for channel in DOCUMENT["channels"].values() if amqp_is(channel, "routingKey")}
    assert keys == {REQUEST_KEY, CANCEL_KEY, *(name.value for name in EventName)}
    for name in EventName:
        operation = DOCUMENT["operations"][f"send{name.value.partition('.')[2].capitalize()}"]
        assert resolved(operation["channel"]["$ref"])["address"] == name
        assert amqp(operation)["mandatory"] is name.terminal
        assert amqp(operation)["deliveryMode"] == 2


def amqp_is(channel: dict[str, Any], kind: str) -> bool:
    return "bindings" in channel and amqp(channel)["is"] == kind
