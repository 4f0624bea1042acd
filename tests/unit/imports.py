"""Reads what a module imports and says, and judges it by the layout: imports point down, only the commands print."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import service

ROOT = Path(service.__file__).parent
BASE = {"cancellation", "clock", "domain", "tls", "wire"}
ADAPTERS = ("postgres", "rabbit", "hub")

# What each layer may import of the service besides itself. `app` knows every class; nothing but a command knows `app`.
MAY_IMPORT: dict[str, set[str]] = {
    "domain": set(),
    "clock": set(),
    "cancellation": set(),
    "tls": set(),
    "tracebacks": {"domain"},
    "wire": {"domain"},
    "postgres": BASE,
    "rabbit": {*BASE, "supervisor"},
    "hub": BASE,
    "supervisor": {"cancellation", "domain"},
    "telemetry": {"clock", "domain", "tracebacks"},
    "settings": {"domain"},
    "tracing": {"domain"},
    "otlp": {"domain", "tracing"},
    "workers": {*BASE, "supervisor", "telemetry", "tracing"},
    "contracts": {"domain", "wire"},
    "http": {*BASE, "contracts", "supervisor", "telemetry", "workers"},
    "sandbox": set(),
    "app": {*BASE, *ADAPTERS, "supervisor", "telemetry", "settings", "tracing", "otlp", "workers", "http"},
    "cli": {
        *BASE,
        *ADAPTERS,
        "contracts",
        "supervisor",
        "telemetry",
        "tracebacks",
        "settings",
        "otlp",
        "app",
        "sandbox",
    },
    "__main__": {"cli"},
}
# Libraries of layers that are meant to need few.
LIBRARIES: dict[str, set[str]] = {
    "domain": {"msgspec"},  # values alone: nothing that reads, writes or waits
    "clock": set(),
    "cancellation": set(),
    "tracing": set(),
    "tls": set(),
    "tracebacks": set(),
    "wire": {"orjson", "pydantic", "pydantic_core", "jsonschema_rs", "uuid_utils"},
    "contracts": {"msgspec", "pydantic", "jsonschema_rs", "yaml"},
}
# Drivers, and the layers that each is for.
DRIVERS: dict[str, set[str]] = {
    "asyncpg": {"postgres"},
    "aio_pika": {"rabbit"},
    "aiormq": {"rabbit"},
    "aiohttp": {"hub", "http", "cli", "sandbox"},
    "aiohttp_sse_client": {"hub"},
    "prometheus_client": {"telemetry", "http"},
    "opentelemetry": {"otlp"},
}
PRINTS = {"print", "sys.stdout.write", "sys.stderr.write", "sys.stdout.buffer.write", "sys.stderr.buffer.write"}
AIM_LINES, MOST_LINES = 300, 400
EXCUSE = "# More than 300 lines because "


def modules() -> list[str]:
    """Every module of the service by its dotted name."""
    files = (file.relative_to(ROOT.parent).with_suffix("") for file in sorted(ROOT.rglob("*.py")))
    return [".".join(file.parts).removesuffix(".__init__") for file in files]


def source_of(module: str) -> str:
    """The text of a module."""
    path = ROOT.parent.joinpath(*module.split("."))
    return (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text("utf-8")


def layer_of(module: str) -> str:
    """`postgres` for `service.postgres.store`, `app` for `service.app`."""
    return module.split(".")[1] if "." in module else ""


def imported(source: str) -> Iterator[str]:
    """Every module that a source imports, wherever in it; relative imports as they are (they have no layer)."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            name = "." * node.level + (node.module or "")
            yield from (f"service.{alias.name}" for alias in node.names) if name == "service" else (name,)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("__import__", "importlib.import_module"):
            yield "an import by name"


def import_faults(module: str, source: str) -> list[str]:
    """What a module imports against the layout."""
    layer = layer_of(module)
    faults = []
    for name in imported(source):
        top = name.split(".")[0]
        if name.startswith(".") or name == "an import by name":
            faults.append(f"{module}: {name}: imports are absolute and written out")
        elif top == "service":
            if layer_of(name) not in {layer, *MAY_IMPORT[layer]}:
                faults.append(f"{module} imports {name}")
        elif top not in sys.stdlib_module_names:
            allowed = LIBRARIES.get(layer)
            if (allowed is not None and top not in allowed) or layer not in DRIVERS.get(top, {layer}):
                faults.append(f"{module} imports {name}")
    return faults


def print_faults(module: str, source: str) -> list[str]:
    """Where a module outside the commands writes to the terminal."""
    if layer_of(module) == "cli":
        return []
    calls = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))
    faults = [f"{module}:{call.lineno} prints" for call in calls if ast.unparse(call.func) in PRINTS]
    return faults + [f"{module} imports {name}" for name in imported(source) if name.split(".")[0] == "rich"]


def size_faults(module: str, source: str) -> list[str]:
    """Whether a module is too long, or long without saying why."""
    lines = source.splitlines()
    if len(lines) > MOST_LINES:
        return [f"{module} has {len(lines)} lines"]
    if len(lines) > AIM_LINES and not any(line.startswith(EXCUSE) for line in lines):
        return [f"{module} has {len(lines)} lines and no line that begins with {EXCUSE!r}"]
    return []
