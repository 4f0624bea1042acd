"""A producer that is not asynchronous: pika, confirms, mandatory, and one id however often it has to try.

python python_pika.py '{"prompt": "a lighthouse at dawn", "num_frames": 49}' [REQUEST_ID]
"""

import json
import os
import sys
import time
import uuid

import pika
from pika.exceptions import AMQPChannelError, AMQPConnectionError, NackError, UnroutableError

AMQP_URL = os.environ.get("DROVER_AMQP_URL", "amqp://guest:guest@127.0.0.1/")
TERMINAL = ("succeeded", "failed", "cancelled", "expired", "rejected")


def run(request: dict) -> dict:
    """Sends the request and follows it to its end: the terminal event."""
    parameters = pika.URLParameters(AMQP_URL)
    parameters.blocked_connection_timeout = 30  # of a broker that is out of memory or disk; else it waits for ever
    parameters.client_properties = {"connection_name": "my-team"}  # what operators see
    connection = pika.BlockingConnection(parameters)
    try:
        channel = connection.channel()
        channel.confirm_delivery()  # basic_publish then returns when the broker has the message, and raises otherwise
        # Exclusive: gone with the connection, and what it held. The same request, sent again, brings its end again.
        inbox = channel.queue_declare("", exclusive=True).method.queue
        channel.queue_bind(inbox, "generation.events", "generation.*")
        publish(channel, request, reply_to=inbox)
        print("request_id:", request["request_id"], flush=True)
        return follow(channel, inbox, request["request_id"])
    finally:
        if connection.is_open:
            connection.close()


def publish(channel: pika.adapters.blocking_connection.BlockingChannel, request: dict, reply_to: str) -> None:
    properties = pika.BasicProperties(
        content_type="application/json",
        delivery_mode=pika.DeliveryMode.Persistent.value,
        message_id=request["request_id"],
        correlation_id=request["request_id"],
        reply_to=reply_to,  # a conflict with an earlier request of this id is told there, and nowhere else
        app_id="my-team",
    )
    body = json.dumps(request).encode()
    channel.basic_publish("generation.commands", "generation.request", body, properties, mandatory=True)


def follow(channel: pika.adapters.blocking_connection.BlockingChannel, inbox: str, request_id: str) -> dict:
    handled = set()
    for method, properties, body in channel.consume(inbox):  # answers heartbeats, too, while it waits
        event = json.loads(body)
        mine = request_id in (event.get("subject"), properties.correlation_id)
        if mine and event["id"] not in handled:  # the terminal event comes by both ways: the exchange, and reply_to
            handled.add(event["id"])
            name = event["type"].removeprefix("drover.").removesuffix(".v1")
            print(name, *(output["url"] for output in event["data"]["outputs"] if output["url"]), flush=True)
            if name.removeprefix("generation.") in TERMINAL:
                return event
        channel.basic_ack(method.delivery_tag)
    raise AMQPConnectionError("the queue was deleted")


def main() -> int:
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    # Chosen before the first attempt, and kept: stored by a real service before it publishes.
    request_id = sys.argv[2] if len(sys.argv) > 2 else str(uuid.uuid4())
    try:
        request = {"request_id": request_id, "input": json.loads(sys.argv[1])}
    except json.JSONDecodeError as error:
        sys.exit(f"the input is not JSON: {error}")
    for pause in (1, 2, 5, 10, None):
        try:
            end = run(request)
            break
        except UnroutableError:
            sys.exit("no queue took the message: does drover run on this broker and virtual host?")
        except (AMQPConnectionError, NackError) as error:
            if pause is None:
                sys.exit(f"the broker is away ({error!r}): run this again with the id {request_id}")
            time.sleep(pause)
        except AMQPChannelError as error:
            sys.exit(f"RabbitMQ: {error!r}; has drover been started on this broker and virtual host?")
    error = end["data"]["error"]
    if error:
        print(f"{error['code']}: {error['message']}", file=sys.stderr)
        for detail in error["details"] or ():
            print(f"  {detail['path']}: {detail['message']}", file=sys.stderr)
    return 0 if end["data"]["status"] in ("succeeded", "partial") else 1


if __name__ == "__main__":
    sys.exit(main())
