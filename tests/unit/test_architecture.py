"""The layout holds: imports point down, drivers stay in their adapters, only commands print, modules stay short.

Every rule is also shown a module that breaks it, so that a rule which no longer sees anything fails here.
"""

from __future__ import annotations

import pytest

from tests.unit.imports import (
    ADAPTERS,
    AIM_LINES,
    EXCUSE,
    MAY_IMPORT,
    MOST_LINES,
    import_faults,
    layer_of,
    modules,
    print_faults,
    size_faults,
    source_of,
)

MODULES = modules()


def test_every_module_belongs_to_a_layer_of_the_layout() -> None:
    assert len(MODULES) > 50
    assert {layer_of(module) for module in MODULES} - {""} <= set(MAY_IMPORT)


@pytest.mark.parametrize("module", [module for module in MODULES if "." in module])
def test_imports_point_down(module: str) -> None:
    assert import_faults(module, source_of(module)) == []


@pytest.mark.parametrize("module", MODULES)
def test_only_the_commands_print(module: str) -> None:
    assert print_faults(module, source_of(module)) == []


@pytest.mark.parametrize("module", MODULES)
def test_modules_stay_short_or_say_why_not(module: str) -> None:
    assert size_faults(module, source_of(module)) == []


# -- the rules see what they are for ----------------------------------------------------------------------------------

OFFENDERS = [
    *[
        ("domain.planted", text)
        for text in ("import orjson", "import structlog", "from service.wire.json import dumps")
    ],
    *[("domain.planted", text) for text in ("from service import clock", "from service.workers.ports import Hub")],
    *[("wire.planted", text) for text in ("import aiohttp", "import structlog", "from service.clock import utc_now")],
    ("wire.planted", "from service.workers.ports import Store"),
    *[
        ("workers.planted", f"import {driver}")
        for driver in ("asyncpg", "aio_pika", "aiormq", "aiohttp", "aiohttp_sse_client.client", "prometheus_client")
    ],
    *[("workers.planted", f"from service.{adapter} import x") for adapter in (*ADAPTERS, "http", "sandbox", "cli")],
    ("workers.planted", "from service.app import build"),
    *[(f"{layer}.planted", "import opentelemetry.trace") for layer in ("workers", "tracing", "rabbit", "http", "cli")],
    *[(f"{layer}.planted", "from service.otlp.tracer import x") for layer in ("workers", "tracing", "rabbit", "http")],
    ("otlp.planted", "from service.workers.ports import Bus"),
    ("workers.planted", "from service.settings import Settings"),
    ("workers.planted", "def late():\n    import asyncpg"),
    ("workers.planted", "if TYPE_CHECKING:\n    from asyncpg import Record"),
    ("workers.planted", "import importlib\nimportlib.import_module('asyncpg')"),
    ("workers.planted", "from ..postgres import store"),
    *[
        (f"{one}.planted", f"from service.{other} import x")
        for one in ADAPTERS
        for other in (*ADAPTERS, "workers", "app", "cli", "http", "sandbox", "settings")
        if one != other
    ],
    *[("contracts.planted", f"from service.{other} import x") for other in (*ADAPTERS, "http", "clock", "workers")],
    ("contracts.planted", "import aiohttp"),
    ("postgres.planted", "import aiormq"),
    ("rabbit.planted", "import asyncpg"),
    ("hub.planted", "import asyncpg"),
    *[("http.planted", f"from service.{other} import x") for other in (*ADAPTERS, "app", "cli", "sandbox")],
    *[("sandbox.planted", f"from service.{other} import x") for other in ("domain", "wire", "clock", "app")],
    ("sandbox.planted", "import asyncpg"),
    ("telemetry", "from service.app import build"),
    ("settings", "from service.cli import main"),
    ("app", "from service.cli import main"),
    ("app", "from service.sandbox import Sandbox"),
    ("__main__", "from service.app import build"),
]


@pytest.mark.parametrize(("module", "text"), OFFENDERS)
def test_an_import_that_points_elsewhere_is_seen(module: str, text: str) -> None:
    assert len(import_faults(f"service.{module}", text)) == 1


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("domain.planted", "import re\nfrom service.domain.states import Output"),
        ("wire.planted", "import orjson\nfrom service.domain.states import Output"),
        ("workers.planted", "import structlog\nfrom service.telemetry import Metrics"),
        ("postgres.planted", "import asyncpg\nfrom service.wire.json import dumps"),
        ("cli.planted", "from service.app import build\nfrom service.sandbox import Sandbox"),
        ("app", "from service.postgres.store import RequestStore"),
    ],
)
def test_an_import_that_points_down_is_allowed(module: str, text: str) -> None:
    assert import_faults(f"service.{module}", text) == []


@pytest.mark.parametrize(
    "text",
    [
        "print('x')",
        "import sys\nsys.stdout.write('x')",
        "import sys\nsys.stderr.write('x')",
        "from rich import console",
    ],
)
def test_printing_outside_the_commands_is_seen(text: str) -> None:
    assert len(print_faults("service.workers.planted", text)) == 1
    assert print_faults("service.cli.planted", text) == []


def test_a_long_module_is_seen() -> None:
    assert size_faults("service.planted", "pass\n" * AIM_LINES) == []
    assert len(size_faults("service.planted", "pass\n" * (AIM_LINES + 1))) == 1
    assert size_faults("service.planted", "pass\n" * AIM_LINES + EXCUSE + "one table is read at one glance\n") == []
    assert len(size_faults("service.planted", EXCUSE + "so\n" + "pass\n" * MOST_LINES)) == 1
