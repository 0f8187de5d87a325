#!/usr/bin/env bash
# Version:      aio-pika 10.2.1 with aiormq 7.2.4, RabbitMQ 3.10.8
# Good guess:   `await exchange.publish(message)` with publisher confirms tells how that very publish ended: with
#               on_return_raises=True it raises DeliveryError if no queue got the message, and returns if one did.
# What happens: a return (Basic.Return) has no delivery tag, and is matched by the message id, with the newest publish of
#               that id. Two publishes with one id are in flight, the first of which has no queue: the first ends well,
#               though its message is gone, and the second raises, though its message is in the queue. As if an outbox
#               sends an event under its own id twice at once, or to two exchanges.
# So:           give each publish a message id of its own, and carry the id that receivers know elsewhere.
#
# It needs a RabbitMQ at AMQP_URL (amqp://guest:guest@localhost:5672/). Exits with 1 if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check aio-pika==10.2.1 aiormq==7.2.4

seen=$(AMQP_URL=${AMQP_URL:-amqp://guest:guest@localhost:5672/} "$folder/venv/bin/python" - <<'PY'
import asyncio
import logging
import os

import aio_pika

logging.disable(logging.CRITICAL)


async def outcome(exchange, message_id, key):
    try:
        await exchange.publish(aio_pika.Message(b"", message_id=message_id), key, mandatory=True)
    except aio_pika.exceptions.DeliveryError:
        return "no queue"
    return "fine"


async def main() -> None:
    connection = await aio_pika.connect(os.environ["AMQP_URL"])
    async with connection:
        channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
        queue = await channel.declare_queue(exclusive=True)
        exchange = channel.default_exchange
        for ids in (("a", "b"), ("same", "same")):
            lost, kept = await asyncio.gather(
                outcome(exchange, ids[0], f"{queue.name}.nowhere"), outcome(exchange, ids[1], queue.name)
            )
            there = (await channel.declare_queue(queue.name, passive=True)).declaration_result.message_count
            print(f"ids {ids[0]} and {ids[1]}: lost one {lost}, kept one {kept}, messages there {there}")
            await queue.purge()


asyncio.run(main())
PY
)
printf '%s\n' "$seen"
expected='ids a and b: lost one no queue, kept one fine, messages there 1
ids same and same: lost one fine, kept one no queue, messages there 1'
if [ "$seen" != "$expected" ]; then
  printf '\nthis is not what was seen before:\n%s\n' "$expected" >&2
  exit 1
fi
