"""Running sandboxes of different tempers."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from service.sandbox import SandboxOptions
from tests.conformance.caller import Caller, calling


@pytest_asyncio.fixture
async def swift() -> AsyncIterator[Caller]:
    """A sandbox that ends its generations at once and renders nothing."""
    async with calling(SandboxOptions(delay_s=0.02, render=False)) as caller:
        yield caller


@pytest_asyncio.fixture
async def slow() -> AsyncIterator[Caller]:
    """A sandbox whose generations stay active for as long as a test lasts."""
    async with calling(SandboxOptions(delay_s=600, render=False)) as caller:
        yield caller


@pytest_asyncio.fixture(scope="module")
async def cinema() -> AsyncIterator[Caller]:
    """A sandbox that renders, shared by the tests of a module."""
    async with calling(SandboxOptions(delay_s=0)) as caller:
        yield caller
