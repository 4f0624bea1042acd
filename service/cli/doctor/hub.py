"""Verdicts about the hub: reached, the right address, the key accepted, its namespaces, the default model."""

from __future__ import annotations

from urllib.parse import urlsplit

from service.cli.doctor.check import Check, fault, not_checked, ok, warning
from service.hub.probe import Answer, HubState, Reach

UNREACHED = {
    Reach.NO_ADDRESS: "Mend the host of OXEN_BASE_URL, or this machine's name resolution.",
    Reach.NOT_REACHED: "Mend OXEN_BASE_URL, or let connections through to it (firewall, proxy).",
    Reach.TLS: "Mend the certificates of this machine (SSL_CERT_FILE, ca-certificates) or its clock, or the scheme of "
    "OXEN_BASE_URL.",
    Reach.TIMED_OUT: "Mend OXEN_BASE_URL, or let connections through to it (a firewall that drops packets looks so); "
    "else the hub is slow, and nothing is to be done here.",
}
GENERATED = frozenset({"image", "video"})


def judge_hub(state: HubState, base_url: str, model: str) -> list[Check]:
    """All verdicts; what cannot be known without an answer, or without the key, is not checked."""
    answers = dict(state.lists)
    own = answers.pop(None)
    first = _answered(own, _shown(base_url))
    if first.name != "hub.key":
        return [first, not_checked("hub.model", "The hub's answer tells nothing.")]
    spaces = [_namespace(str(name), answer) for name, answer in answers.items()]
    return [ok("hub.connection", f"The hub at {_shown(base_url)} answers."), first, *spaces, _model(state, model)]


def _shown(base_url: str) -> str:
    """Without user and password."""
    parts = urlsplit(base_url)
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{parts.hostname}{port}{parts.path}"


def _answered(answer: Answer, address: str) -> Check:
    """`hub.key` when the hub itself has answered, `hub.connection` when it is not sure that it was the hub."""
    if answer.reach is not Reach.ANSWERED:
        return fault("hub.connection", f"{address} could not be reached: {answer.told}.", UNREACHED[answer.reach])
    if 300 <= answer.status < 400:
        return fault(
            "hub.connection",
            f"{address} leads elsewhere ({answer.status}, to {_host(answer.location)}); drover follows no redirects, "
            "since a paid POST must not be repeated.",
            "Set OXEN_BASE_URL to where it leads.",
        )
    if answer.status == 429:
        return warning("hub.connection", "The hub asks for fewer requests (429).", "Try again in a minute.")
    if answer.status >= 500:
        return fault(
            "hub.connection",
            f"{address} answers {answer.status}: the hub, or a proxy before it, is in trouble.",
            "Nothing to mend here when it is down; requests wait meanwhile.",
        )
    if answer.status in (401, 402, 403):
        return _refused(answer)
    if answer.status != 200 or not answer.own:
        return fault(
            "hub.connection",
            f"What answers at {address} is not the hub ({answer.status}"
            f"{', ' + answer.told if answer.told else ', not in a shape of its own'}).",
            "Mend OXEN_BASE_URL: scheme and host alone, such as https://hub.oxen.ai.",
        )
    return ok("hub.key", "The hub takes the key.")


def _refused(answer: Answer) -> Check:
    told = f" ({answer.told})" if answer.told else ""
    if answer.status == 402:
        return fault("hub.key", f"The account at the hub has no credits{told}.", "Top the account up at the hub.")
    if answer.status == 403:
        return fault("hub.key", f"The key may not list generations{told}.", "Use a key that may, in OXEN_API_KEY.")
    return fault(
        "hub.key",
        f"The hub does not take the key{told}.",
        "Set OXEN_API_KEY (or the file of OXEN_API_KEY_FILE) to a key that is valid at this hub, and restart drover.",
    )


def _host(location: str) -> str:
    return urlsplit(location).hostname or "another path"


def _namespace(name: str, answer: Answer) -> Check:
    if answer.reach is Reach.ANSWERED and answer.status == 200 and answer.own:
        return ok(f"hub.namespace.{name}", f"The key may see the namespace {name}.")
    told = answer.told or f"the hub answers {answer.status}"
    return fault(
        f"hub.namespace.{name}",
        f"The namespace {name} of DROVER_TARGET_NAMESPACES is not open to the key: {told}.",
        "Let the key's account into the namespace at the hub, or take it out of DROVER_TARGET_NAMESPACES.",
    )


def _model(state: HubState, model: str) -> Check:
    answer, name = state.model, "hub.model"
    if answer.reach is not Reach.ANSWERED or answer.status in (401, 402, 403):
        return not_checked(name, f"The hub did not tell ({answer.told or answer.status}).")
    if answer.status == 404 and answer.own:
        return warning(
            name,
            f"The hub does not offer {model}, which requests mean that name no model.",
            "Name a model in every request; `GET /api/ai/models` at the hub lists them.",
        )
    if answer.status != 200 or not answer.own:
        return warning(
            name,
            f"The hub answers {answer.status} about the model {model}.",
            "The built-in schema is used meanwhile; other models wait until the hub can be asked.",
        )
    if state.model_outputs and not GENERATED.intersection(state.model_outputs):
        return warning(name, f"{model} makes neither images nor videos.", "Name a model in every request.")
    return ok(name, f"The hub offers {model}.")
