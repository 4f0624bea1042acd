"""A call and its answer: `reply_to` with a queue of one's own, or with RabbitMQ's direct reply-to.

    python python_rpc.py [--direct] '{"prompt": "a lighthouse at dawn", "num_frames": 49}' [REQUEST_ID]

The answer is the terminal event. It is best effort: published once, to a queue that has to be there. A caller that
restarts, or whose connection breaks, has lost it (of direct reply-to there is not even a queue). Then call again with
the same REQUEST_ID: it is not paid twice, and answered at once when it has ended. Who must not miss an end binds a
durable queue to `generation.events` instead, as python_aio_pika.py does.
"""

import asyncio
import json
import os
import sys
import uuid

import aio_pika
from aio_pika.exceptions import AMQPError, PublishError

AMQP_URL = os.environ.get("DROVER_AMQP_URL", "amqp://guest:guest@127.0.0.1/")
CLIENT = {"connection_name": "my-team"}  # what operators see
TIMEOUT_S = float(os.environ.get("RPC_TIMEOUT_S", "600"))  # a video takes minutes


class Caller:
    """Any number of calls at the same time over one channel; answers are told apart by `correlation_id`."""

    def __init__(self, channel: aio_pika.abc.AbstractChannel, *, direct: bool) -> None:
        self.channel = channel
        self.direct = direct
        self.waiting: dict[str, asyncio.Future[dict]] = {}

    async def start(self) -> None:
        self.commands = await self.channel.get_exchange("generation.commands")
        if self.direct:
            # Not a real queue: the broker passes answers on to this very channel, without acknowledgements. The request
            # has to be published on the channel that consumes.
            inbox = await self.channel.get_queue("amq.rabbitmq.reply-to", ensure=False)
        else:
            inbox = await self.channel.declare_queue(exclusive=True)
        self.reply_to = inbox.name
        await inbox.consume(self.on_reply, no_ack=True)

    async def on_reply(self, message: aio_pika.abc.AbstractIncomingMessage) -> None:
        answered = self.waiting.get(message.correlation_id or "")
        if answered is not None and not answered.done():  # else a repeat, or the caller has given up
            answered.set_result(json.loads(message.body))

    def on_close(self, *_: object) -> None:
        for answered in self.waiting.values():
            if not answered.done():
                answered.set_exception(ConnectionError("the connection broke, and the answer with it"))

    async def call(self, request: dict) -> dict:
        """The terminal event of the request. TimeoutError; PublishError when nobody takes requests."""
        call_id = str(uuid.uuid4())  # of this call; the request's own id stays the same when it is called again
        message = aio_pika.Message(
            json.dumps(request).encode(),
            content_type="application/json",
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            correlation_id=call_id,
            reply_to=self.reply_to,
            app_id="my-team",
        )
        self.waiting[call_id] = asyncio.get_running_loop().create_future()
        try:
            await self.commands.publish(message, "generation.request", mandatory=True, timeout=10)
            return await asyncio.wait_for(self.waiting[call_id], TIMEOUT_S)
        finally:
            del self.waiting[call_id]


async def main() -> int:
    arguments = [argument for argument in sys.argv[1:] if argument != "--direct"]
    if not arguments:
        sys.exit(__doc__)
    request_id = arguments[1] if len(arguments) > 1 else str(uuid.uuid4())
    print("request_id:", request_id, flush=True)
    # Not connect_robust: after a reconnect the answer's address is another one, which drover does not know.
    async with await aio_pika.connect(AMQP_URL, timeout=10, client_properties=CLIENT) as connection:
        caller = Caller(await connection.channel(on_return_raises=True), direct="--direct" in sys.argv)
        await caller.start()
        connection.close_callbacks.add(caller.on_close)
        try:
            end = await caller.call({"request_id": request_id, "input": json.loads(arguments[0])})
        except PublishError as error:
            sys.exit(f"no queue took the message ({error}): does drover run on this broker and virtual host?")
        except (AMQPError, OSError, TimeoutError) as error:
            sys.exit(f"no answer ({error!r}): call again with the id {request_id}")

    name = end["type"].removeprefix("drover.").removesuffix(".v1")
    print(name, *(output["url"] for output in end["data"]["outputs"] if output["url"]))
    error = end["data"]["error"]
    if error:
        print(f"{error['code']}: {error['message']}", file=sys.stderr)
        for detail in error["details"] or ():
            print(f"  {detail['path']}: {detail['message']}", file=sys.stderr)
    return 0 if end["data"]["status"] in ("succeeded", "partial") else 1


if __name__ == "__main__":
    try:
        sys.exit(asyncio.run(main()))
    except json.JSONDecodeError as error:
        sys.exit(f"the input is not JSON: {error}")
    except (AMQPError, OSError) as error:
        sys.exit(f"RabbitMQ: {error!r}; has drover been started on this broker and virtual host?")
