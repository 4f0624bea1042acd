"""A producer that loses nothing: aio-pika, a durable queue for its events, confirms, retries. Ctrl-C cancels.

    python python_aio_pika.py '{"prompt": "a lighthouse at dawn", "num_frames": 49}' [REQUEST_ID]

Started again with the same REQUEST_ID, it goes on where it was: nothing is paid twice, and the events have waited.
"""

import asyncio
import json
import os
import signal
import sys
import uuid

import aio_pika
from aio_pika.exceptions import AMQPError, ChannelInvalidStateError, PublishError

AMQP_URL = os.environ.get("DROVER_AMQP_URL", "amqp://guest:guest@127.0.0.1/")
CLIENT = {"connection_name": "my-team"}  # what operators see
# A nack (the queue is full), a broken link, no answer; the last is how aio-pika 10 tells of a frozen broker.
AGAIN = (AMQPError, ChannelInvalidStateError, OSError, TimeoutError, asyncio.CancelledError)
TERMINAL = ("succeeded", "failed", "cancelled", "expired", "rejected")


class Follower:
    """Takes events as they come: each is handled once, and none after a later one of the same request."""

    def __init__(self, request_id: str) -> None:
        self.request_id = request_id
        self.handled: set[str] = set()  # a service keeps both in its database, in the transaction of what it does
        self.sequence = ""
        self.end: asyncio.Future[dict] = asyncio.get_running_loop().create_future()

    async def on_message(self, message: aio_pika.abc.AbstractIncomingMessage) -> None:
        event = json.loads(message.body)
        # The answer to a message without a usable id has no `subject`, but every answer has the correlation id.
        mine = self.request_id in (event.get("subject"), message.correlation_id)
        rejected = event["type"] == "drover.generation.rejected.v1"  # tells of a message: outside a request's sequence
        if mine and event["id"] not in self.handled and (rejected or event["sequence"] > self.sequence):
            self.handled.add(event["id"])
            self.sequence = self.sequence if rejected else event["sequence"]
            self.handle(event)
        # After the work. When the connection has gone meanwhile, this raises, and the event comes again.
        await message.ack()

    def handle(self, event: dict) -> None:
        name = event["type"].removeprefix("drover.").removesuffix(".v1")
        print(name, *(output["url"] for output in event["data"]["outputs"] if output["url"]), flush=True)
        if name.removeprefix("generation.") in TERMINAL and not self.end.done():
            self.end.set_result(event)


async def publish(exchange: aio_pika.abc.AbstractExchange, key: str, body: dict, reply_to: str) -> None:
    """Until the broker has confirmed it. A lost confirm says nothing, so the same message is sent again."""
    message = aio_pika.Message(
        json.dumps(body).encode(),
        content_type="application/json",
        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        correlation_id=body["request_id"],
        reply_to=reply_to,  # a conflict with an earlier request of this id is told there, and nowhere else
        app_id="my-team",
    )
    for pause in (0.5, 1, 2, 5, 10, None):
        try:
            await exchange.publish(message, key, mandatory=True, timeout=10)
            break
        except PublishError as error:  # returned: `mandatory`
            sys.exit(f"no queue took the message ({error}): does drover run on this broker and virtual host?")
        except AGAIN as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():  # by us
                raise
            if pause is None:
                sys.exit(f"the broker does not confirm ({error!r}): run this again with the id {body['request_id']}")
            await asyncio.sleep(pause)


async def main() -> int:
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    # Chosen before the first attempt, and kept: stored by a real service before it publishes.
    request_id = sys.argv[2] if len(sys.argv) > 2 else str(uuid.uuid4())
    request = {"request_id": request_id, "input": json.loads(sys.argv[1]), "metadata": {"order": 4711}}

    connection = await aio_pika.connect_robust(AMQP_URL, timeout=10, client_properties=CLIENT)
    async with connection:
        channel = await connection.channel(on_return_raises=True)
        await channel.set_qos(prefetch_count=20)
        # A service has one such queue, for all of its requests; the expiry removes what this example leaves behind.
        inbox = await channel.declare_queue(
            f"my-team.{request_id}", durable=True, arguments={"x-queue-type": "quorum", "x-expires": 3_600_000}
        )
        await inbox.bind("generation.events", "generation.*")  # before the request, or its first events are missed
        follower = Follower(request_id)
        consumer = await inbox.consume(follower.on_message)

        commands = await channel.get_exchange("generation.commands")
        cancels: list[asyncio.Task] = []

        def cancel() -> None:
            print("cancelling ...", file=sys.stderr, flush=True)
            command = publish(commands, "generation.cancel", {"request_id": request_id}, inbox.name)
            cancels.append(asyncio.ensure_future(command))

        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, cancel)
        await publish(commands, "generation.request", request, inbox.name)
        print("request_id:", request_id, flush=True)
        end = await follower.end
        await asyncio.gather(*cancels)
        await inbox.cancel(consumer)
        await inbox.delete(if_unused=False, if_empty=False)

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
