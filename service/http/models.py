"""`/v1/models`: what may be asked for, with the schema of its parameters."""

from __future__ import annotations

from aiohttp import web

from service.domain.upstream import ModelOffer
from service.http import calls
from service.wire.json import dumps
from service.workers.showroom import Showroom

PATH = "/v1/models"


class Models:
    """The routes. Without the hub, what it said the last time; 503 when there was no last time."""

    def __init__(self, showroom: Showroom) -> None:
        self._showroom = showroom

    def routes(self) -> list[web.RouteDef]:
        """What the server is to answer."""
        return [web.get(PATH, self._list), web.get(PATH + "/{model}", self._get)]

    async def _list(self, request: web.Request) -> web.StreamResponse:
        calls.only(request, ())
        document = {"models": [_shown(offer) for offer in await self._showroom.offers()]}
        return web.Response(body=dumps(document), content_type="application/json")

    async def _get(self, request: web.Request) -> web.StreamResponse:
        calls.only(request, ())
        offer = await self._showroom.offer(request.match_info["model"])
        if offer is None:
            raise calls.refuse(404, "Not known", "The hub offers no image or video model of this id; see /v1/models.")
        document = {**_shown(offer), "input_schema": offer.schema}
        return web.Response(body=dumps(document), content_type="application/json")


def _shown(offer: ModelOffer) -> dict[str, object]:
    return {
        "model": offer.model,
        "name": offer.name,
        "description": offer.description,
        "outputs": offer.outputs,
        "pricing": offer.pricing,
    }
