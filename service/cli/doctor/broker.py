"""Verdicts about RabbitMQ: reached, let in, the topology as found against as wanted, permissions, who consumes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from urllib.parse import unquote, urlsplit

from msgspec import Struct

from service.cli.doctor.check import Check, fault, not_checked, ok, sentence, warning
from service.rabbit.connection import TLS
from service.rabbit.probe import BrokerState, Declared, Found, Reach
from service.rabbit.topology import CANCELS, DEAD, REQUESTS, UNROUTED

OLDEST_VERSION = (3, 10)
PERMISSIONS = "configure `generation\\..*`, write `generation\\..*|amq\\.default`, read `generation\\..*`"
NO_CONFIGURE = (
    "may not declare them, so that their arguments cannot be compared; that is enough where another user runs "
    "`drover topology`."
)
UNSEEN = "Whether the queues are bound cannot be seen over AMQP; `drover topology` binds them, and may be repeated."


class Account(Struct, frozen=True):
    """Who connects where, without the password."""

    user: str
    vhost: str
    address: str

    @classmethod
    def of(cls, url: str) -> Account:
        """Reads DROVER_AMQP_URL."""
        parts = urlsplit(url)
        port = parts.port or (5671 if parts.scheme == "amqps" else 5672)
        vhost = unquote(parts.path[1:]) or "/"
        return cls(unquote(parts.username or "guest"), vhost, f"{parts.hostname or '127.0.0.1'}:{port}")

    @property
    def grant(self) -> str:
        """The command that grants what drover needs."""
        return (
            f"rabbitmqctl set_permissions -p '{self.vhost}' '{self.user}' 'generation\\..*' "
            "'generation\\..*|amq\\.default' 'generation\\..*'"
        )


def judge_broker(state: BrokerState, account: Account) -> list[Check]:
    """All verdicts; one alone when there is no connection to look through."""
    if state.tls is not None:
        remedy = f"{sentence(TLS.remedy(state.tls))}."
        return [fault("broker.tls", f"RabbitMQ at {account.address}: {state.tls}.", remedy)]
    match state.reach:
        case Reach.WRONG_FILE:
            return [fault("broker.tls", state.told, "Mend the path, or let this user read the file.")]
        case Reach.NO_ANSWER:
            return [
                fault(
                    "broker.connection",
                    f"{account.address}: {state.told.removesuffix('.')}.",
                    "Start RabbitMQ, or mend host, port and scheme (amqps:// for TLS, and the port that speaks it) of "
                    "DROVER_AMQP_URL.",
                )
            ]
        case Reach.LOGIN_REFUSED:
            return [
                fault(
                    "broker.login",
                    f"RabbitMQ at {account.address} does not let the user {account.user!r} in: the user is not there, "
                    "or the password is another.",
                    "Mend user and password of DROVER_AMQP_URL (special characters percent-encoded), or set the "
                    f"password on the broker: `rabbitmqctl change_password '{account.user}' ...`. `guest` is let in "
                    "from the broker's own machine only.",
                )
            ]
        case Reach.VHOST_REFUSED:
            return [
                fault(
                    "broker.vhost",
                    f"The login of {account.user!r} is right, but the vhost {account.vhost!r} is not there, or this "
                    "user has no permissions in it (RabbitMQ's client library does not tell which).",
                    f"See `rabbitmqctl list_vhosts`. If it is missing: `rabbitmqctl add_vhost '{account.vhost}'`, or "
                    f"mend the path of DROVER_AMQP_URL. Then grant: `{account.grant}`.",
                )
            ]
    return [
        _version(state, account),
        *_topology(state.declared, account),
        _permissions(state, account),
        *_queues({item.name: item for item in state.declared if item.kind == "queue"}),
    ]


def _version(state: BrokerState, account: Account) -> Check:
    found = f"RabbitMQ {state.version or 'of unknown version'} at {account.address}, vhost {account.vhost!r}"
    numbers = tuple(int(part) for part in state.version.split(".")[:2] if part.isdecimal())
    if len(numbers) == 2 and numbers < OLDEST_VERSION:
        return fault(
            "broker.connection",
            f"{found}: its quorum queues cannot dead-letter at least once.",
            f"Use RabbitMQ {'.'.join(map(str, OLDEST_VERSION))} or later.",
        )
    return ok("broker.connection", found + ".")


def _topology(declared: Sequence[Declared], account: Account) -> Iterator[Check]:
    missing = [f"the {item.kind} {item.name}" for item in declared if item.found is Found.MISSING]
    if missing:
        yield fault("broker.topology", f"Not there: {', '.join(missing)}.", "Run `drover topology`, or `drover serve`.")
    different = [item for item in declared if item.found not in (Found.SAME, Found.MISSING, Found.REFUSED)]
    yield from (_different(item) for item in different)
    if missing or different:
        return
    if any(item.found is Found.REFUSED for item in declared):
        yield ok("broker.topology", f"All exchanges and queues are there. {account.user!r} {NO_CONFIGURE}")
    else:
        yield ok("broker.topology", f"All exchanges and queues are there as wanted. {UNSEEN}")


def _different(item: Declared) -> Check:
    thing, name = f"{item.kind} {item.name}", f"broker.{item.kind}.{item.name}"
    match item.found:
        case Found.OTHER_ARGUMENTS:
            return fault(
                name,
                f"The {thing} is there with other arguments than drover's: {item.told}.",
                f"Arguments cannot be changed: stop what publishes to it, let it run empty, delete the {item.kind}, "
                "and run `drover topology`.",
            )
    return fault(
        name, f"The broker did not answer for the {thing}: {item.told}.", "Look into RabbitMQ's log; try again."
    )


def _permissions(state: BrokerState, account: Account) -> Check:
    if not state.refusals:
        return ok("broker.permissions", f"The user {account.user!r} may do what drover does with what is there.")
    may_not = "; ".join(refusal.doing for refusal in state.refusals)
    return fault(
        "broker.permissions",
        f"The user {account.user!r} may not {may_not}. {state.refusals[0].told}.",
        f"Grant {PERMISSIONS}: `{account.grant}`.",
    )


def _queues(queues: dict[str, Declared]) -> Iterator[Check]:
    there = {name: item for name, item in queues.items() if item.found is not Found.MISSING}
    if REQUESTS not in there or CANCELS not in there:
        yield not_checked("broker.consumers", "Nobody can consume what is not there.")
    else:
        yield _consumers(there[REQUESTS], there[CANCELS])
    if DEAD in there:
        yield _waiting(
            there[DEAD],
            "broker.quarantine",
            "message(s) in quarantine.",
            "`drover dead list` says why; then `drover dead replay` or `drover dead purge`.",
        )
    if UNROUTED in there:
        yield _waiting(
            there[UNROUTED],
            "broker.unrouted",
            "terminal event(s) that nobody had bound a queue for; they are kept seven days.",
            f"Bind a queue to generation.events; then move what is wanted out of {UNROUTED}, and purge the rest.",
        )


def _consumers(requests: Declared, cancels: Declared) -> Check:
    waiting = f"{requests.messages} request(s) and {cancels.messages} cancel(s) wait"
    if not requests.consumers or not cancels.consumers:
        return warning(
            "broker.consumers",
            f"No replica consumes {REQUESTS if not requests.consumers else CANCELS}; {waiting}.",
            "Start one with `drover serve`; when one runs, its log and /readyz say why it does not consume.",
        )
    return ok("broker.consumers", f"{requests.consumers} replica(s) consume; {waiting}.")


def _waiting(queue: Declared, name: str, what: str, remedy: str) -> Check:
    found = f"{queue.messages} {what}"
    return warning(name, found, remedy) if queue.messages else ok(name, found)
