"""The `drover` command. Exit codes: 0 done, 1 it failed or could not be reached in time, 2 bad usage or settings."""

from __future__ import annotations

import logging
import os
import sys
from importlib.metadata import version
from itertools import pairwise
from types import ModuleType, TracebackType

from cyclopts import App as Cli
from cyclopts import CycloptsError

from service import tracebacks
from service.domain.errors import ConfigurationError, DroverError
from service.domain.messages import DEFAULT_MODEL

HELP = ("--help", "-h")
cli = Cli(
    name="drover",
    help="Drives image and video generations from a message bus through the Oxen hub, and back as events.",
    version=version("drover"),
    version_flags=["--version"],
    help_flags=HELP,
    print_error=False,
    exit_on_error=False,
    result_action="return_value",
)
# Each is imported when it is called, or told of: half a second less for all the others.
for command in (
    "serve:serve",
    "operate:migrate",
    "operate:topology",
    "submit.command:submit",
    "cancel:cancel",
    "dead:dead",
    "status.command:status",
    "watch:watch",
    "doctor.command:doctor",
    "sandbox:sandbox",
    "operate:config",
    "contracts:contracts",
    "completion:completion",
):
    cli.command(f"service.cli.{command}", name=command.partition(":")[2])


def main() -> None:
    """Runs one command and ends the process with its exit code."""
    sys.excepthook = _show_defect
    code = run(sys.argv[1:])
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _forget_the_reader()
    sys.exit(code)


def _show_defect(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Where nobody caught it, without what it says."""
    sys.stderr.write(tracebacks.render((kind, error, trace)) + "\n")


def run(arguments: list[str]) -> int:
    """Runs one command; its exit code. Every expected error is one clear sentence on stderr."""
    # What libraries have to say is in our own sentences; `serve` sets its own logging up.
    logging.getLogger().setLevel(logging.CRITICAL)
    structlog = _structlog()
    silent = structlog.make_filtering_bound_logger(logging.CRITICAL)
    structlog.configure(wrapper_class=silent, cache_logger_on_first_use=False)
    if not arguments or arguments[0] in HELP:
        cli.resolved_commands()  # or the list of commands would not say what they do
    try:
        result = cli(arguments)
        if arguments[:1] == ["submit"] and not {*HELP}.isdisjoint(arguments):
            result = _parameters_of_the_model(arguments)
    except CycloptsError as error:
        print(f"drover: {error}", file=sys.stderr)  # noqa: T201 - the command line prints
        return 2
    except ConfigurationError as error:
        print(f"drover: {error}", file=sys.stderr)  # noqa: T201
        return 2
    except DroverError as error:
        print(f"drover: {error}", file=sys.stderr)  # noqa: T201
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        _forget_the_reader()
        return 1
    return result if isinstance(result, int) else 0


def _structlog() -> ModuleType:
    """Imported without rich, of which it takes 52 modules wherever that is installed: 4 MiB and 0.08 s, for tracebacks
    that we do not draw. Commands that draw with rich import it themselves."""
    hidden = "rich" not in sys.modules
    if hidden:
        sys.modules["rich"] = None  # type: ignore[assignment] # to whoever imports it now, it is not there
    try:
        import structlog  # noqa: PLC0415 - not before that
    finally:
        if hidden:
            del sys.modules["rich"]
    return structlog


def _forget_the_reader() -> None:
    """Whoever read has enough: what is still to be written at the exit goes nowhere, without an error."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parameters_of_the_model(arguments: list[str]) -> int:
    """`drover submit --model X --help` also says what X takes: options that cyclopts cannot know of."""
    named = [following for option, following in pairwise(arguments) if option == "--model"]
    named += [argument.partition("=")[2] for argument in arguments if argument.startswith("--model=")]
    from service.cli.submit.command import print_options  # noqa: PLC0415 - as slow to import as the command itself

    return print_options(named[0] if named else DEFAULT_MODEL)
