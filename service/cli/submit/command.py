"""The command itself: what was typed, checked, and sent."""

from __future__ import annotations

import asyncio
import sys
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import orjson
from cyclopts import Parameter
from rich.console import Console
from rich.table import Column, Table
from uuid_utils.compat import uuid7

from service.cli.ids import valid_id
from service.cli.submit.batch import Plan, submit_many
from service.cli.submit.download import make_directory
from service.cli.submit.models import KnownModel, look_up
from service.cli.submit.one import submit_one
from service.cli.submit.options import describe, read_options
from service.cli.submit.requests import Common, LookUp, check, read_input, read_lines, read_params
from service.domain.errors import ConfigurationError
from service.domain.messages import DEFAULT_MODEL
from service.settings import load_settings

MOST_IN_FLIGHT = 1000
OWN = frozenset(
    f"--{name}"
    for name in (
        *("prompt", "model", "param", "input", "from-file", "request-id", "num-generations", "priority", "batch"),
        *("in-flight", "wait", "timeout", "download", "check", "options", "json", "help"),
    )
)
Switch = Annotated[bool, Parameter(negative=())]


def submit(
    *parameters: Annotated[str, Parameter(allow_leading_hyphen=True, show_default=False)],
    prompt: str | None = None,
    model: str = DEFAULT_MODEL,
    param: Annotated[tuple[str, ...], Parameter(name=["--param", "-p"], negative=(), show_default=False)] = (),
    input_file: Annotated[Path | None, Parameter(name="--input", allow_leading_hyphen=True)] = None,
    from_file: Annotated[Path | None, Parameter(allow_leading_hyphen=True)] = None,
    request_id: str | None = None,
    num_generations: int = 1,
    priority: int | None = None,
    batch: str = "",
    in_flight: int = 100,
    wait: Switch = False,
    timeout: float = 1800.0,
    download: Path | None = None,
    check_input: Annotated[bool, Parameter(name="--check", negative="--no-check")] = True,
    options: Switch = False,
    json: Switch = False,
) -> int:
    """Send generation requests over the bus; with --wait, follow them to their ends.

    The model's parameters are options of their own; --options (and --help with --model) lists them.

        drover submit --prompt "a lighthouse at dawn" --num-frames 49 --resolution square_hd --wait --download .
        drover submit --prompt "waves" --no-generate-audio --seed 7
        drover submit --model flux-2-dev-text-to-image --options
        jq -n '{prompt: "waves"}' | drover submit --input -
        drover submit --from-file requests.jsonl --wait --download results --json > results.jsonl

    With --from-file each line is a whole request (`input`, and what else it may have: `request_id`, `model`,
    `num_generations`, `priority`, `deadline`, `metadata`, `target_namespace`), or its parameters alone. An id that is
    not given is derived from the line's content, so that the same file, sent again after a crash, is the same
    requests, and nothing is paid for twice: what has ended is told again, and what is on disk is not fetched again.

    Exit code 0 when all were sent (with --wait: succeeded), 1 when not, 2 when something is wrong with what was typed.

    Parameters
    ----------
    parameters
        The model's own parameters: --num-frames 49, --generate-audio, --no-generate-audio; arrays and objects as JSON.
    prompt
        The prompt.
    model
        The hub's id of the model.
    param
        A parameter as name=value, whatever the schema knows; the value is read as JSON where it is JSON, else as text.
    input_file
        A JSON file with all parameters; "-" reads standard input. What is typed overrides what is in it.
    from_file
        A JSON Lines file of requests; "-" reads standard input. Parameters that are typed hold for every line.
    request_id
        The idempotency key; a new one unless given.
    num_generations
        How many outputs, 1 to 4.
    priority
        0 to 9, higher first among the requests of one source; 4 unless given.
    batch
        A name that is part of derived ids: with another one, the same file is new requests.
    in_flight
        With --from-file: how many are sent and not ended (without --wait: not confirmed) at a time.
    wait
        Follow them until they ended. Exit code 1 unless all succeeded.
    timeout
        Seconds to wait at most, for each.
    download
        A directory for the results; implies --wait. They are fetched from public addresses, and from the host of
        OXEN_BASE_URL.
    check_input
        Judge what is sent by the model's schema, where it is known, before anything is sent.
    options
        Only list the model's parameters.
    json
        Print events as JSON lines; with --from-file, what came of each request.
    """
    if options:
        return print_options(model, as_json=json)
    settings = load_settings(hub=False)
    url, hub = settings.amqp_url.get_secret_value(), settings.base_url.get_secret_value()
    follow = wait or download is not None
    if request_id is not None:
        valid_id(request_id, "--request-id")
    _check_numbers(timeout, in_flight)
    known = cache(look_up)
    typed = _typed(parameters, prompt, param, known, model)
    fields = {"model": model, "num_generations": num_generations}
    if priority is not None:
        fields["priority"] = priority
    if from_file is not None:
        _only_for_one(request_id, input_file)
        requests = read_lines(from_file, Common(fields, typed, batch))
    else:
        values = {} if input_file is None else read_input(input_file)
        requests = {"": {"request_id": request_id or str(uuid7()), **fields, "input": {**values, **typed}}}
    if check_input:
        check(requests, known)
        for name in {str(body["model"]) for body in requests.values()}:
            if (found := known(name)).schema is None:
                sys.stderr.write(f"drover: {name} is not known here ({found.reason}), so its input is sent unjudged.\n")
    if download is not None:
        make_directory(download)
    if from_file is not None:
        plan = Plan(url, hub, in_flight, timeout, download, follow, json)
        return asyncio.run(submit_many(plan, list(requests.values())))
    return asyncio.run(submit_one(url, requests[""], timeout, download, hub=hub, follow=follow, as_json=json))


def _check_numbers(timeout: float, in_flight: int) -> None:
    if timeout <= 0:
        raise ConfigurationError("--timeout must be more than 0 seconds.")
    if not 1 <= in_flight <= MOST_IN_FLIGHT:
        raise ConfigurationError(f"--in-flight must be 1 to {MOST_IN_FLIGHT}.")


def _only_for_one(request_id: str | None, input_file: Path | None) -> None:
    given = "--request-id" if request_id is not None else "--input" if input_file is not None else None
    if given is not None:
        raise ConfigurationError(f"{given} is for one request; a line of --from-file has its own.")


def _typed(
    parameters: tuple[str, ...], prompt: str | None, param: tuple[str, ...], known: LookUp, model: str
) -> dict[str, Any]:
    """The parameters of the command line."""
    values = read_params(param)
    if parameters:
        found: KnownModel = known(model)
        if found.schema is None and parameters[0].startswith("--"):
            raise ConfigurationError(
                f"{parameters[0]}: the parameters of {model} are not known here ({found.reason}); use --param "
                "name=value, which is sent as it is."
            )
        values |= read_options(parameters, found.schema or {}, model)
    if prompt is not None:
        values["prompt"] = prompt
    return values


def print_options(model: str, *, as_json: bool = False) -> int:
    """Lists what a model takes."""
    found = look_up(model)
    if found.schema is None:
        raise ConfigurationError(f"The parameters of {model} are not known here: {found.reason}.")
    if as_json:
        Console().print_json(orjson.dumps({"model": model, "origin": found.origin, "schema": found.schema}).decode())
        return 0
    origin = found.origin + (f", since {found.reason}" if found.reason else "")
    table = Table(
        *("option", "takes", "default", Column("meaning", ratio=1)),
        title=f"Parameters of {model} (from: {origin})",
        title_justify="left",
    )
    for row in describe(found.schema, OWN - {"--prompt"}):
        table.add_row(*row)
    Console(width=None if Console().is_terminal else 160).print(table)
    return 0
