"""The half of the page that an OpenAPI document tells: servers, and each operation with what it takes and answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from service.contracts.fields import Node, field_table, resolved, table, type_name
from service.contracts.markup import Child, Markup, anchor, element, inline, joined, prose
from service.contracts.parts import Part, Section, example, folded, part

Document = Mapping[str, Any]
PREFIX = "http"
METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")


def http_part(document: Document) -> Part:
    """The whole of it, operations by their first tag."""
    info = _node(document.get("info"))
    tags: dict[str, list[tuple[str, str, Document]]] = {}
    for method, path, operation in _operations(document):
        tag = next(iter(operation.get("tags") or ()), "Operations")
        tags.setdefault(str(tag), []).append((method, path, operation))
    sections = [
        _servers(document),
        *(_section(tag, found, document) for tag, found in tags.items()),
        _security(document),
    ]
    return part(PREFIX, f"{info.get('title', 'the service')}: the HTTP API", info, sections)


def _node(value: object) -> Document:
    return value if isinstance(value, Mapping) else {}


def _operations(document: Document) -> Iterator[tuple[str, str, Document]]:
    for path, item in _node(document.get("paths")).items():
        whole = resolved(_node(item), document)
        for method in METHODS:
            if method in whole:
                shared = whole.get("parameters") or []
                operation = whole[method]
                yield method, path, {**operation, "parameters": [*shared, *(operation.get("parameters") or [])]}


def _servers(document: Document) -> Section:
    rows: list[list[Child]] = [
        [element("code", str(server.get("url"))), inline(server.get("description"))]
        for server in document.get("servers") or ()
    ]
    body = table(("server", "meaning"), rows) if rows else Markup()
    return Section(anchor(PREFIX, "servers"), "Servers", body)


def _security(document: Document) -> Section:
    schemes = _node(_node(document.get("components")).get("securitySchemes"))
    rows: list[list[Child]] = [
        [name, f"{scheme.get('type')} {scheme.get('scheme', '')}", inline(scheme.get("description"))]
        for name, scheme in schemes.items()
    ]
    body = table(("scheme", "kind", "meaning"), rows) if rows else Markup()
    return Section(anchor(PREFIX, "security"), "Who may call", body)


def _section(tag: str, found: list[tuple[str, str, Document]], document: Document) -> Section:
    body = joined(_operation(method, path, operation, document) for method, path, operation in found)
    entries = tuple((anchor(PREFIX, method, path), f"{method.upper()} {path}") for method, path, _ in found)
    return Section(anchor(PREFIX, "tag", tag), tag[:1].upper() + tag[1:], body, entries)


def _operation(method: str, path: str, operation: Document, document: Document) -> Markup:
    secured = operation.get("security", document.get("security"))
    names = [name for choice in secured or () for name in choice]
    responses = _node(operation.get("responses"))
    return joined(
        [
            element("h3", element("span", method, class_=f"tag {method}"), path, id=anchor(PREFIX, method, path)),
            element("p", element("strong", "Deprecated.")) if operation.get("deprecated") else None,
            element("p", inline(operation["summary"])) if operation.get("summary") else None,
            prose(operation.get("description")),
            element("p", f"Needs: {', '.join(dict.fromkeys(names))}", class_="meta") if names else None,
            _parameters(operation, document),
            _request(operation, document),
            element("h4", "Answers") if responses else None,
            [_response(str(status), _node(told), document) for status, told in responses.items()],
        ]
    )


def _parameters(operation: Document, document: Document) -> Markup | None:
    parameters = [resolved(_node(item), document) for item in operation.get("parameters") or ()]
    schema = {
        "properties": {str(item.get("name")): _parameter(item, document) for item in parameters},
        "required": [str(item.get("name")) for item in parameters if item.get("required")],
    }
    return joined([element("h4", "Parameters"), field_table(schema, document)]) if parameters else None


def _parameter(parameter: Document, document: Document) -> Node:
    """A field as the table wants it: its schema, with where it goes and what it means."""
    schema = resolved(_node(parameter.get("schema")), document)
    told = str(parameter.get("description") or schema.get("description") or "")
    return {**schema, "description": f"{told} (In the {parameter.get('in')}.)".strip()}


def _request(operation: Document, document: Document) -> Markup | None:
    body = resolved(_node(operation.get("requestBody")), document)
    if not body:
        return None
    needed = "required" if body.get("required") else "optional"
    head = [element("h4", f"Body, {needed}"), prose(body.get("description"))]
    return joined([*head, _content(body, document)])


def _response(status: str, response: Document, document: Document) -> Markup:
    whole = resolved(response, document)
    summary = [element("code", status), " ", inline(whole.get("description"))]
    headers = _node(whole.get("headers"))
    fields = {
        name: _parameter({**resolved(_node(told), document), "in": "header"}, document)
        for name, told in headers.items()
    }
    if not headers and not whole.get("content"):
        return element("p", summary)
    return folded(summary, field_table({"properties": fields}, document) if fields else None, _content(whole, document))


def _content(body: Document, document: Document) -> Markup:
    return joined(_media(kind, _node(media), document) for kind, media in _node(body.get("content")).items())


def _media(kind: str, media: Document, document: Document) -> Markup:
    schema = media.get("schema")
    told: list[Child] = [", ", type_name(schema, document)] if schema is not None else []
    shown = [{**resolved(_node(item), document), "name": name} for name, item in _node(media.get("examples")).items()]
    examples = [example(str(item.get("summary") or item["name"]), item.get("value")) for item in shown]
    if "example" in media:
        examples.append(example(kind, media["example"]))
    return joined(
        [
            element("p", element("code", kind), told, class_="meta"),
            field_table(schema, document) if schema is not None else None,
            examples,
        ]
    )
