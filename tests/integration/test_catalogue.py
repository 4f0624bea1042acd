"""What is known of models: the hub's word while it can be asked, the built-in schema while it cannot."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
import pytest_asyncio
from structlog.testing import capture_logs

from service.domain.errors import ErrorCode, HubUnavailableError
from service.domain.messages import DEFAULT_MODEL
from service.domain.states import Fault
from service.hub.client import HubClient
from service.sandbox import Sandbox
from service.wire.builtin_models import BUILTIN_SCHEMAS
from service.wire.model_schema import ModelSchema
from service.workers.catalogue import Catalogue
from tests.support.broker import wait_ready
from tests.support.proxy import Cable
from tests.support.raw import http, raw_server
from tests.support.replica import KEY

pytestmark = pytest.mark.asyncio


@asynccontextmanager
async def catalogue_of(url: str, **options: float) -> AsyncIterator[Catalogue]:
    """A catalogue that asks this hub."""
    client = HubClient(url, KEY, connections=4, submit_timeout_s=5)
    await client.open()
    try:
        yield Catalogue(client, BUILTIN_SCHEMAS, **options)
    finally:
        await client.close()


@pytest_asyncio.fixture
async def cable(hub: Sandbox) -> AsyncIterator[Cable]:
    """The cable to the hub."""
    async with Cable(hub.url) as plugged:
        yield plugged


async def test_nothing_is_known_before_it_was_asked_for(hub: Sandbox) -> None:
    async with catalogue_of(hub.url) as catalogue:
        assert catalogue.known(DEFAULT_MODEL) is None
        asked = await catalogue.look_up(DEFAULT_MODEL)
        assert isinstance(asked, ModelSchema)
        assert catalogue.known(DEFAULT_MODEL) is asked
        assert hub.hub.ledger.calls


async def test_the_built_in_schema_stands_in_while_the_hub_is_away_and_is_replaced_when_it_is_back(
    cable: Cable,
) -> None:
    await cable.unplug()
    async with catalogue_of(cable.url, refresh_interval_s=0.05) as catalogue:
        running = asyncio.create_task(catalogue.run())
        await wait_ready(lambda: catalogue.known(DEFAULT_MODEL) is not None)
        built_in = catalogue.known(DEFAULT_MODEL)
        assert isinstance(built_in, ModelSchema)
        fault = built_in.fault({})
        assert fault is not None
        assert fault.code is ErrorCode.INVALID_INPUT
        await cable.plug()
        await wait_ready(lambda: catalogue.known(DEFAULT_MODEL) is not built_in)
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


async def test_a_schema_that_is_remembered_serves_while_the_hub_is_away(cable: Cable) -> None:
    async with catalogue_of(cable.url, fresh_s=0) as catalogue:
        remembered = await catalogue.look_up(DEFAULT_MODEL)
        await cable.unplug()
        assert await catalogue.look_up(DEFAULT_MODEL) is remembered


async def test_a_model_that_is_neither_built_in_nor_remembered_cannot_be_judged_while_the_hub_is_away(
    cable: Cable,
) -> None:
    await cable.unplug()
    async with catalogue_of(cable.url) as catalogue:
        with pytest.raises(HubUnavailableError, match="'another-model' cannot be asked for now"):
            await catalogue.look_up("another-model")
        assert catalogue.known("another-model") is None


async def test_an_unknown_model_is_refused_and_asked_for_again_after_a_while(hub: Sandbox) -> None:
    async with catalogue_of(hub.url, unknown_fresh_s=0.1) as catalogue:
        verdict = await catalogue.look_up("misspelt")
        assert isinstance(verdict, Fault)
        assert verdict.code is ErrorCode.UNKNOWN_MODEL
        assert catalogue.known("misspelt") is verdict
        await wait_ready(lambda: catalogue.known("misspelt") is None)


@pytest.mark.parametrize(
    ("model", "usable"),
    [
        (b'{"id":"m","capabilities":{"input":["text"],"output":["text"]}}', False),
        (b'{"id":"m","capabilities":{"input":["text"],"output":["image"]}}', True),
        (b'{"id":"m"}', True),
        (b'{"id":"m","json_request_schema":{"type":"no such type"}}', True),
        (b'{"id":"m","json_request_schema":true}', True),
        (b'{"id":"m","json_request_schema":[1]}', True),
    ],
    ids=["chat", "image", "unsaid", "a broken schema", "anything", "no schema at all"],
)
async def test_only_a_model_that_surely_makes_neither_image_nor_video_is_refused(model: bytes, usable: bool) -> None:
    async with raw_server(http("200 OK", model)) as server, catalogue_of(server.url) as catalogue:
        verdict = await catalogue.look_up("m")
    if usable:
        assert isinstance(verdict, ModelSchema)
    else:
        assert isinstance(verdict, Fault)
        assert verdict.code is ErrorCode.UNKNOWN_MODEL


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ('{"properties":{"a":{"$ref":"%s/common.json#/a"}}}', "is not usable: .*common.json"),
        ('{"$id":"%s/s.json","$ref":"other.json"}', "is not usable: .*other.json"),
        ('{"$schema":"%s/our-own-dialect"}', "is not usable: .*our-own-dialect"),
        ('"%s"', "gives no schema"),
        ('{"type":"objekt"}', "is not usable: .*at /type"),
        ("true", "gives no schema"),
        ("{}", "gives no schema"),
    ],
)
async def test_what_cannot_be_judged_passes_unjudged_and_seedless_and_the_operator_is_told(
    schema: str, reason: str
) -> None:
    async with raw_server(http("200 OK", b"{}")) as elsewhere:
        body = f'{{"id":"m","json_request_schema":{schema.replace("%s", elsewhere.url)}}}'
        async with raw_server(http("200 OK", body.encode())) as server, catalogue_of(server.url) as catalogue:
            with capture_logs() as lines:
                verdict = await catalogue.look_up("m")
        assert elsewhere.requests == []
    assert isinstance(verdict, ModelSchema)
    assert verdict.fault({"a": 1}) is None
    assert verdict.choose_seed({}, 1) is None
    [line] = [line for line in lines if line["event"] == "model.unjudged"]
    assert (line["log_level"], line["model"]) == ("warning", "m")
    assert re.search(reason, line["reason"])


@pytest.mark.parametrize("name", [".", "..", "no/such/model", "../queue", "?x=1", "#"])
async def test_a_name_that_looks_like_an_address_is_an_unknown_model(hub: Sandbox, name: str) -> None:
    async with catalogue_of(hub.url) as catalogue:
        verdict = await catalogue.look_up(name)
    assert isinstance(verdict, Fault)
    assert verdict.code is ErrorCode.UNKNOWN_MODEL


async def test_a_page_that_is_not_the_hubs_does_not_make_a_model_unknown() -> None:
    async with raw_server(http("404 Not Found", b"<html>")) as server, catalogue_of(server.url) as catalogue:
        with pytest.raises(HubUnavailableError):
            await catalogue.look_up("m")
