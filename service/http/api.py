"""All of the API, and what describes it."""

from __future__ import annotations

from aiohttp import web

from service.http.documents import Documents
from service.http.events import Events
from service.http.generations import Generations, Reader
from service.http.models import Models
from service.http.page import Page
from service.workers.admission import Admission
from service.workers.feed import Feed
from service.workers.showroom import Showroom


def api_routes(reader: Reader, feed: Feed, admission: Admission, showroom: Showroom) -> list[web.RouteDef]:
    """What the server is to answer; who may ask is the server's to judge."""
    return [
        *Generations(reader, feed, admission).routes(),
        *Events(feed).routes(),
        *Models(showroom).routes(),
        *Documents().routes(),
        *Page().routes(),
    ]
