"""Ask for the end of a request, as a producer would."""

from __future__ import annotations

import asyncio
import sys

import orjson

from service.cli.ids import valid_id
from service.rabbit.producer import Producer
from service.settings import load_settings


def cancel(request_id: str, /, *, json: bool = False) -> int:
    """Ask for the end of a request over the bus. Its terminal event tells what came of it.

    For example:

        drover cancel 0198-...
        drover cancel 0198-... && drover status 0198-...     # what is at the hub is ended there first

    One that has not come yet is cancelled when it comes, within 24 hours.

    Parameters
    ----------
    request_id
        The id it was sent with.
    json
        Print the id as JSON.
    """
    settings = load_settings(hub=False)
    valid_id(request_id)

    async def send() -> None:
        async with Producer(settings.amqp_url.get_secret_value()) as producer:
            await producer.cancel(request_id)

    asyncio.run(send())
    if json:
        sys.stdout.write(orjson.dumps({"request_id": request_id}).decode() + "\n")
    else:
        sys.stdout.write(f"request_id: {request_id}\n")
    return 0
