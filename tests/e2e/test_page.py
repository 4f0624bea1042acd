"""The page, in a real browser: what people see of their requests, how they send one, what nobody may do through it."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import asyncpg
import pytest
import pytest_asyncio
from aiohttp import web
from playwright.async_api import Browser, Locator, Page, Route, expect

from service.app import App
from service.sandbox import Sandbox, SandboxOptions
from service.sandbox.catalog import Model
from service.sandbox.models.stills import IMAGEN
from service.sandbox.schemas import LTX, MODEL_OBJECTS, STILL
from tests.support.browser import TIMEOUT_MS, chromium, window
from tests.support.bus import Team
from tests.support.replica import KEY, environment, running

pytestmark = pytest.mark.asyncio
expect.set_options(timeout=TIMEOUT_MS)
EVIL = "<img src=x onerror=window.struck=1>"
LIVE = re.compile(r"^live")


@pytest_asyncio.fixture(scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as started:
        yield started


@pytest_asyncio.fixture
async def tab(browser: Browser) -> AsyncIterator[Page]:
    """A window with nothing in it yet."""
    async with window(browser) as page:
        yield page


@pytest_asyncio.fixture
async def page(app: App, tab: Page) -> Page:
    """The page of the replica, live."""
    return await opened(tab, app)


async def opened(tab: Page, app: App) -> Page:
    await tab.goto(address(app))
    await expect(tab.locator("#stream")).to_have_text(LIVE)
    await expect(tab.get_by_label("prompt (required)")).to_be_visible()
    return tab


def address(app: App) -> str:
    return f"http://127.0.0.1:{app.http.port}/"


async def send(page: Page) -> None:
    await page.get_by_role("button", name="Send, and pay for it").click()


def status_of(page: Page, request_id: str) -> Locator:
    """The cell of the list."""
    return (
        page.get_by_role("row")
        .filter(has=page.get_by_role("link", name=request_id, exact=True))
        .get_by_role("cell")
        .nth(1)
    )


# -- sending ----------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def rendering(amqp_url: str, database_url: str) -> AsyncIterator[App]:
    """A replica on a hub whose results are real files."""
    options = SandboxOptions(api_key=KEY, delay_s=0.3)
    async with Sandbox(options) as hub, running(environment(amqp_url, database_url, hub.url)) as app:
        yield app


async def test_what_the_form_sends_ends_with_a_video_that_plays_and_an_image_that_loads(
    amqp_url: str, database_url: str, tab: Page
) -> None:
    async with rendering(amqp_url, database_url) as app:
        page = await opened(tab, app)
        await expect(page.get_by_text("A generation costs money")).to_be_visible()
        await page.get_by_label("prompt (required)").fill("a lighthouse at dawn")
        await page.get_by_label("num frames").fill("25")
        await page.get_by_label("resolution").fill("square")
        await send(page)
        await expect(page.locator("#detail-state")).to_have_text("succeeded")
        video = page.get_by_label("Output 1", exact=True)
        assert await video.evaluate("async (video) => { await video.play(); return video.duration > 0.9 }")
        await expect(page.locator("#events li")).to_have_text(
            [re.compile(name) for name in ("accepted", "submitted", "succeeded")]
        )

        await page.get_by_label("Model", exact=True).select_option(STILL)
        await page.get_by_label("image size").fill('{"width": 128, "height": 64}')
        await page.get_by_label("prompt (required)").fill("a red door")
        await send(page)
        image = page.get_by_role("img", name="Output 1")
        await image.wait_for()
        assert await image.evaluate("async (image) => { await image.decode(); return image.naturalWidth }") == 128
        await expect(page.get_by_role("row")).to_have_count(3)


async def test_what_is_not_filled_in_is_not_sent_and_the_rest_with_its_type(page: Page, hub: Sandbox) -> None:
    await page.get_by_label("prompt (required)").fill("x")
    await page.get_by_text("More parameters").click()
    await page.get_by_label("frames per second").fill("12.5")
    await page.get_by_label("video quality").select_option("low")
    await page.get_by_label("generate audio").uncheck()
    await page.get_by_label("seed").fill("7")
    await page.get_by_text("Options of the request").click()
    await page.get_by_label("num generations").fill("2")
    await page.get_by_label("metadata").fill('{"shot": 7}')
    await send(page)
    await expect(page.locator("#detail-state")).to_have_text("succeeded")
    await expect(page.locator("#facts")).to_contain_text('"shot": 7')
    sent = {"prompt": "x", "frames_per_second": 12.5, "video_quality": "low", "generate_audio": False, "seed": 7}
    assert [generation["parameters"] for generation in hub.ledger()["generations"]] == [sent, sent]


async def test_what_is_wrong_is_said_beside_its_field_folded_ones_too_and_nothing_is_paid_for(
    page: Page, hub: Sandbox
) -> None:
    await page.get_by_text("More parameters").click()
    await page.get_by_label("frames per second").fill("100")
    await page.get_by_text("More parameters").click()
    await page.get_by_label("num frames").fill("5")
    await send(page)
    for name, told in (
        ("prompt (required)", "required"),
        ("num frames", "minimum of 9"),
        ("frames per second", "maximum of 60"),
    ):
        field = page.get_by_label(name)
        await expect(field).to_have_attribute("aria-invalid", "true")
        await expect(field).to_have_accessible_description(re.compile(told))
        await expect(field).to_be_visible()
    await expect(page.get_by_label("prompt (required)")).to_be_focused()
    assert hub.ledger()["generations"] == []

    await page.get_by_label("Model", exact=True).select_option(STILL)
    await page.get_by_label("image size").fill("square")
    await send(page)
    await expect(page.get_by_label("image size")).to_have_accessible_description(re.compile('no JSON; .* "quotes"'))


async def test_a_model_whose_schema_names_its_parameters_elsewhere_takes_them_as_json(page: Page, hub: Sandbox) -> None:
    await page.get_by_label("Model", exact=True).select_option(IMAGEN)
    parameters = page.get_by_label("input (required)")
    await parameters.fill('{"prompt": 5}')
    await send(page)
    await expect(parameters).to_have_accessible_description(re.compile("/input/prompt: "))
    await parameters.fill('{"prompt": "a red door"}')
    await send(page)
    await expect(page.locator("#detail-state")).to_have_text("succeeded")
    [generation] = hub.ledger()["generations"]
    assert generation["parameters"]["prompt"] == "a red door"


async def test_a_request_whose_answer_was_lost_is_sent_again_under_its_id_and_paid_for_once(
    page: Page, hub: Sandbox
) -> None:
    async def lose_the_answer(route: Route) -> None:
        await route.fetch()
        await route.abort()

    await page.route("**/v1/generations", lose_the_answer, times=1)
    await page.get_by_label("prompt (required)").fill("x")
    request_id = await page.locator("#request-id").input_value()
    await send(page)
    await expect(page.get_by_role("alert")).to_contain_text(["Whether it has arrived is not known"])
    await expect(status_of(page, request_id)).to_have_text("succeeded")
    await page.get_by_label("prompt (required)").fill("something else")
    await send(page)
    await expect(page.locator("#request-id-fault")).to_contain_text("take a new id")
    await page.get_by_label("prompt (required)").fill("x")
    await send(page)
    await expect(page.locator("#detail-heading")).to_have_text(request_id)
    await expect(page.locator("#request-id")).not_to_have_value(request_id)
    [generation] = hub.ledger()["generations"]
    assert set(generation["parameters"]) == {"prompt", "seed"}, "and no default: the seed is drover's"


async def test_a_request_is_cancelled_once_that_is_confirmed(page: Page, hub: Sandbox, amqp_url: str) -> None:
    hub.faults.never_ending = 1.0
    async with Team(amqp_url) as team:
        await team.send({"request_id": "r-1", "input": {"prompt": "x"}})
        await page.get_by_role("link", name="r-1").click()
        await expect(page.locator("#detail-state")).to_have_text("submitted")
        cancel = page.get_by_role("button", name="Cancel the request")
        await cancel.click()
        await expect(page.get_by_role("button", name="Keep it")).to_be_focused()
        await page.keyboard.press("Escape")
        await expect(page.get_by_role("dialog")).to_be_hidden()
        await cancel.click()
        await page.get_by_role("button", name="Cancel it").click()
        await expect(page.locator("#detail-state")).to_have_text("cancelled")
        await expect(status_of(page, "r-1")).to_have_text("cancelled")
        await expect(cancel).to_be_hidden()
        await team.end_of("r-1")
    await page.keyboard.press("Tab")
    await page.locator("#close").press("Escape")
    await expect(page.get_by_role("link", name="r-1")).to_be_focused()


# -- looking ----------------------------------------------------------------------------------------------------------


async def test_the_list_is_filtered_by_status_and_goes_on_to_older_pages(app: App, page: Page, amqp_url: str) -> None:
    async with Team(amqp_url) as team:
        await team.send_many(
            [{"request_id": f"r-{i}", "input": {"prompt": "x [fail]" if i == 3 else "x"}} for i in range(60)]
        )
        await team.wait_for(lambda heard: all(heard.ends(f"r-{i}") for i in range(60)))
        await expect(page.locator("#rows tr")).to_have_count(50)
        await team.send({"request_id": "r-60", "input": {"prompt": "x"}})
        await expect(page.locator("#rows a").first).to_have_text("r-60")
    await page.reload()
    rows = page.locator("#rows tr")
    await expect(rows).to_have_count(50)
    shown = await page.locator("#rows a").all_inner_texts()
    await page.get_by_role("button", name="Older").click()
    await expect(rows).to_have_count(11)
    shown += await page.locator("#rows a").all_inner_texts()
    async with aiohttp.ClientSession() as session, session.get(f"{address(app)}v1/generations?limit=200") as answer:
        assert shown == [item["request_id"] for item in (await answer.json())["generations"]]
    await page.get_by_role("button", name="Newest").click()
    await expect(rows).to_have_count(50)
    await page.get_by_label("Status", exact=True).select_option("failed")
    await expect(page.locator("#rows a")).to_have_text(["r-3"])


async def test_a_replica_that_was_away_is_followed_again_and_what_happened_meanwhile_is_shown(
    amqp_url: str, database_url: str, hub: Sandbox, tab: Page
) -> None:
    async with running(environment(amqp_url, database_url, hub.url)) as app, Team(amqp_url) as team:
        port = app.http.port
        page = await opened(tab, app)
        await team.send({"request_id": "before", "input": {"prompt": "x"}})
        await expect(status_of(page, "before")).to_have_text("succeeded")
    await expect(page.locator("#stream")).to_have_text("not connected")
    async with Team(amqp_url) as team:
        async with running(environment(amqp_url, database_url, hub.url)):  # elsewhere
            await team.send({"request_id": "between", "input": {"prompt": "x"}})
            await team.end_of("between")
        async with running(environment(amqp_url, database_url, hub.url, DROVER_HTTP_PORT=str(port))):
            await expect(status_of(page, "between")).to_have_text("succeeded")
            await team.send({"request_id": "after", "input": {"prompt": "x"}})
            await expect(status_of(page, "after")).to_have_text("succeeded")
            await expect(page.locator("#stream")).to_have_text("live, 9 events")


async def test_the_state_of_the_replica_is_shown_with_what_to_mend(
    app: App, hub: Sandbox, tab: Page, team: Team
) -> None:
    hub.faults.posts_empty = 1.0
    hub.faults.posts_empty_type = "unauthenticated"
    await team.send({"request_id": "r-1", "input": {"prompt": "x"}})
    async with asyncio.timeout(20):
        while not app.gatekeeper.paused():
            await asyncio.sleep(0.01)
    page = await opened(tab, app)
    await expect(page.get_by_label("State of this replica")).to_contain_text("leads")
    await expect(page.locator("#paused li")).to_contain_text("Submission is paused")


async def test_two_thousand_events_within_ten_seconds_do_not_freeze_it(page: Page, database_url: str) -> None:
    await page.evaluate(
        "() => { window.tasks = []; new PerformanceObserver((list) => window.tasks.push(...list.getEntries()"
        ".map((entry) => entry.duration))).observe({ entryTypes: ['longtask'] }) }"
    )
    sql = await asyncpg.connect(database_url)
    async with asyncio.timeout(20):
        for batch in range(5):
            await publish(
                sql, *(event(f"r-{batch}-{number % 100}", sequence=1 + number // 100) for number in range(400))
            )
            await expect(page.locator("#stream")).to_have_text(f"live, {400 * (batch + 1)} events")
            await page.get_by_label("prompt (required)").fill(f"still answers {batch}")
    await sql.close()
    longest = await page.evaluate("Math.max(0, ...window.tasks)")
    assert longest < 1000, f"the page did nothing else for {longest:.0f} ms"
    assert await page.locator("#rows tr").count() <= 50


# -- what nobody may --------------------------------------------------------------------------------------------------


async def test_with_tokens_the_page_asks_for_one_and_says_when_it_is_refused(
    amqp_url: str, database_url: str, hub: Sandbox, tab: Page
) -> None:
    variables = environment(amqp_url, database_url, hub.url, DROVER_API_TOKENS="first,second-ü")
    async with running(variables) as app:
        await tab.goto(address(app))
        await expect(tab.get_by_label("Token")).to_be_focused()
        await expect(tab.get_by_role("table")).to_be_hidden()
        await tab.get_by_label("Token").fill("third")
        await tab.keyboard.press("Enter")
        await expect(tab.get_by_role("alert")).to_contain_text(["refused"])
        await tab.get_by_label("Token").fill("second-ü")
        await tab.keyboard.press("Enter")
        await expect(tab.locator("#stream")).to_have_text(LIVE)
        await expect(tab.get_by_role("table")).to_be_visible()
        await tab.reload()
        await expect(tab.locator("#stream")).to_have_text(LIVE)
        await tab.get_by_role("button", name="Forget the token").click()
        await expect(tab.get_by_label("Token")).to_be_focused()


async def test_the_files_hold_no_data_and_go_by_the_apis_rule_where_there_are_no_tokens(
    amqp_url: str, database_url: str, hub: Sandbox, app: App
) -> None:
    async with aiohttp.ClientSession() as session:
        for path in ("", "page.js", "form.js", "page.css"):
            async with session.get(address(app) + path) as answer:
                assert answer.status == 200
                assert "unsafe" not in answer.headers["Content-Security-Policy"]
                assert answer.headers["X-Frame-Options"] == "DENY"
            async with session.get(address(app) + path, headers={"Host": "evil.test"}) as answer:
                assert answer.status == 403
    variables = environment(amqp_url, database_url, hub.url, DROVER_API_TOKENS="first")
    async with running(variables) as guarded, aiohttp.ClientSession() as session:
        for path in ("", "page.js", "form.js", "page.css"):
            async with session.get(address(guarded) + path, headers={"Host": "drover.internal"}) as answer:
                assert answer.status == 200


async def test_hostile_text_stays_text_wherever_it_is_shown(
    app: App, hub: Sandbox, team: Team, tab: Page, database_url: str
) -> None:
    hostile = Model({**MODEL_OBJECTS[0], **hostile_offer()}, None)
    hub.hub.catalog._models = {EVIL: hostile, **hub.hub.catalog._models}
    await team.send(
        {"request_id": "r-1", "model": LTX, "input": {"prompt": EVIL}, "metadata": {EVIL: f"{EVIL}\u2028"}}, app_id=EVIL
    )
    await team.end_of("r-1")
    sql = await asyncpg.connect(database_url)
    error = json.dumps({"code": "internal", "message": EVIL, "details": [{"path": EVIL, "message": EVIL}]})
    await sql.execute("update requests set model = $1, target_namespace = $1, error = $2", EVIL, error)
    await sql.execute(
        "update outputs set status = 'failed', url = 'javascript:window.struck=1', media_type = $1, error = $1,"
        " generation_id = $1",
        EVIL,
    )
    await tab.goto(address(app) + "#r-1")
    await expect(tab.locator("#stream")).to_have_text(LIVE)
    data = {
        "model": EVIL,
        "received_at": "2030-01-01T00:00:00Z",
        "error": {**json.loads(error), "code": EVIL},
        "metadata": {EVIL: f"{EVIL}\u2028"},
    }
    await publish(sql, event("r-1", sequence=9, **data), event(EVIL, sequence=1, **data, status=EVIL))
    await sql.close()
    for place in (
        "#model-about",
        "#price",
        "#model option",
        "#basic label",
        "#basic .hint",
        "#basic option",
        "#facts",
        "#detail-error",
        "#outputs .fault",
        "#outputs .hint",
        "#rows",
        "#rows a",
    ):
        await expect(tab.locator(place).filter(has_text=EVIL).first).to_be_attached()
    await expect(tab.locator("#events li")).to_have_count(4)
    await expect(tab.locator("#events")).to_contain_text(EVIL)
    await expect(tab.get_by_role("link", name="Open Output")).to_have_count(0)
    assert await tab.locator("[onerror], script:not([src])").count() == 0
    assert await tab.evaluate("window.struck") is None


async def test_a_page_of_another_origin_can_neither_send_nor_cancel_nor_read_nor_show_it(
    app: App, hub: Sandbox, tab: Page, team: Team
) -> None:
    await team.send({"request_id": "r-1", "input": {"prompt": "x"}})
    await team.end_of("r-1")
    async with elsewhere(attack(address(app))) as url:
        answered = []
        tab.on("response", lambda response: answered.append((response.request.method, response.status)))
        await tab.goto(url)
        assert await tab.evaluate("attempts()") == ["TypeError"] * 4
        await tab.evaluate("document.forms[0].submit()")
        await tab.wait_for_url(f"{address(app)}v1/generations")
        assert ("POST", 403) in answered
        await tab.goto(url)
        assert tab.frames[1].url.startswith("chrome-error:")
    await team.send({"request_id": "r-2", "input": {"prompt": "x"}})
    await team.end_of("r-2")
    assert len(hub.ledger()["generations"]) == 2


def attack(url: str) -> str:
    body = '{"request_id": "evil", "input": {"prompt": "x"}}'
    return f"""<!doctype html><iframe src="{url}"></iframe>
    <form method="post" action="{url}v1/generations" enctype="text/plain">
    <input name='{body[:-1]}, "a":"' value='"}}'></form>
    <script>
    const attempt = (path, options) => fetch("{url}" + path, options).then(() => "answered", (error) => error.name);
    const sends = {{ method: "POST", body: {json.dumps(body)} }};
    window.attempts = () => Promise.all([
      attempt("v1/generations", {{ ...sends, headers: {{ "Content-Type": "application/json" }} }}),
      attempt("v1/generations", {{ ...sends, headers: {{ "Content-Type": "text/plain" }} }}),
      attempt("v1/generations/r-1", {{ method: "DELETE" }}),
      attempt("v1/generations", {{}}),
    ]);
    </script>"""


@asynccontextmanager
async def elsewhere(text: str) -> AsyncIterator[str]:
    """Another server, and so another origin."""

    async def answer(_: web.Request) -> web.Response:
        return web.Response(text=text, content_type="text/html")

    app = web.Application()
    app.router.add_get("/", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()


def hostile_offer() -> dict[str, Any]:
    schema = {
        "type": "object",
        "properties": {
            EVIL: {"type": "string", "description": EVIL, "default": EVIL, "enum": [EVIL]},
            "prompt": {"type": "string", "description": EVIL, "default": EVIL},
        },
        "required": ["prompt"],
        "basic": [EVIL],
    }
    names = dict.fromkeys(("id", "display_name", "description"), EVIL)
    return {**names, "pricing": {EVIL: EVIL}, "json_request_schema": schema}


def event(request_id: str, *, sequence: int, **data: Any) -> dict[str, Any]:
    """A published event, as the outbox holds it."""
    return {
        "specversion": "1.0",
        "id": f"{request_id}-{sequence}",
        "type": f"drover.generation.output.{EVIL}.v1",
        "subject": request_id,
        "time": "2030-01-01T00:00:00Z",
        "sequence": f"{sequence:010d}",
        "data": {
            "request_id": request_id,
            "status": "submitted",
            "model": LTX,
            "outputs": [
                {
                    "index": 0,
                    "generation_id": "g",
                    "status": "processing",
                    "media_type": None,
                    "url": None,
                    "error": None,
                }
            ],
            "error": None,
            "attempts": 1,
            "received_at": f"2030-01-01T00:00:{sequence:02d}Z",
            "metadata": {"text": "x" * 500},
            **data,
        },
    }


async def publish(sql: asyncpg.Connection[asyncpg.Record], *documents: dict[str, Any]) -> None:
    """Events that count as published."""
    await sql.executemany(
        "insert into outbox (event_id, request_id, sequence, stored, terminal, routing_key, type, body, created_at)"
        " values (gen_random_uuid(), $1, $2, true, false, 'generation.output', 'generation.output', $3, now())",
        [(d["subject"], int(d["sequence"]), json.dumps(d).encode()) for d in documents],
    )
