#!/usr/bin/env bash
# Version:      aiormq 7.2.4 (under aio-pika 10.2.1) beside pika 1.4.4, with yarl 1.25.1
# Good guess:   one AMQP URL leads both clients to one virtual host: its path is percent-decoded once, so a virtual host
#               that somebody has called %2F (by `rabbitmqctl add_vhost %2F`, meaning /) is written %252F in a URL.
# What happens: pika opens the virtual host %2F, aiormq opens /. It decodes the path, and then replaces what is still
#               %2F by a slash. No URL leads aiormq to a virtual host with %2F in its name.
# So:           do not let both clients work under such a name, or refuse it.
#
# It needs no broker: both are asked which virtual host they would open. Exits with 1 if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check aiormq==7.2.4 yarl==1.25.1 pika==1.4.4

seen=$("$folder/venv/bin/python" - <<'PY'
import asyncio

import pika
from aiormq.connection import Connection


async def main() -> None:
    for path in ("shop", "a%2Fb", "%252F", "a%252Fb"):
        url = f"amqp://guest:guest@localhost/{path}"
        print(f"{path}: pika {pika.URLParameters(url).virtual_host}, aiormq {Connection(url).vhost}")


asyncio.run(main())
PY
)
printf '%s\n' "$seen"
expected='shop: pika shop, aiormq shop
a%2Fb: pika a/b, aiormq a/b
%252F: pika %2F, aiormq /
a%252Fb: pika a%2Fb, aiormq a/b'
if [ "$seen" != "$expected" ]; then
  printf '\nthis is not what was seen before:\n%s\n' "$expected" >&2
  exit 1
fi
