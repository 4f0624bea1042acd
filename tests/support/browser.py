"""A headless Chromium, Debian's own; a window of it with an empty profile for each test."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from playwright.async_api import Browser, Page, async_playwright

ARGUMENTS = [
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--autoplay-policy=no-user-gesture-required",
]
TIMEOUT_MS = 20_000


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """One process for many windows; its profile is temporary."""
    program = shutil.which("chromium")
    assert program is not None, "there is no chromium: run `deploy/local/install.py tools` as root"
    own_sandbox = [] if os.geteuid() else ["--no-sandbox"]  # as root it has none
    async with async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=program, args=[*ARGUMENTS, *own_sandbox])
        try:
            yield browser
        finally:
            await browser.close()


@asynccontextmanager
async def window(browser: Browser) -> AsyncIterator[Page]:
    """A page with storage of its own. AssertionError at its end for what broke in it, or what its policy stopped."""
    context = await browser.new_context(viewport={"width": 1400, "height": 1000})
    context.set_default_timeout(TIMEOUT_MS)
    page = await context.new_page()
    broken: list[str] = []
    page.on("pageerror", lambda error: broken.append(str(error)))
    page.on("console", lambda said: broken.append(said.text) if _stopped(said.text) else None)
    try:
        yield page
    finally:
        await context.close()
    assert broken == []


def _stopped(text: str) -> bool:
    """By the policy of the page itself; what a foreign page may not frame is for the test to look at."""
    return "Content Security Policy" in text and "frame-ancestors" not in text
