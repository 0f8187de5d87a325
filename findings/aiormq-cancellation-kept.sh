#!/usr/bin/env bash
# Version:      aiormq 7.2.4 with pamqp 4.0.1, under Python 3.11 to 3.13
# Good guess:   a task that is cancelled while it awaits a library's connect() ends with CancelledError: whoever writes
#               `task.cancel(); await asyncio.wait([task])` gets on, if the task only catches Exception.
# What happens: if the broker refuses the connection at that moment, connect() is busy closing its socket, and ends with
#               the refusal (InvalidFrameError, since Close is no answer to Open) although it was cancelled. A task that
#               connects again after an Exception goes on, and nobody cancels it twice.
# So:           after whatever such a call raises, ask `asyncio.current_task().cancelling()`.
#
# A server in the script plays the broker: it answers up to Open, and then Close with 530. The connecting task is
# cancelled one turn of the loop later in each run. Exits with 1 if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check aiormq==7.2.4 pamqp==4.0.1

seen=$("$folder/venv/bin/python" - <<'PY'
import asyncio
import logging

from aiormq import Connection
from pamqp import commands, frame

logging.disable(logging.CRITICAL)
TURNS = 60


async def refuse(reader, writer):
    """Be a broker that refuses the virtual host."""
    await reader.readexactly(8)
    answers = [
        commands.Connection.Start(0, 9, {}, "PLAIN", "en_US"),
        commands.Connection.Tune(2047, 131072, 0),
        None,  # TuneOk wants no answer
        commands.Connection.Close(530, "NOT_ALLOWED - connection limit is reached", 10, 40),
    ]
    try:
        writer.write(frame.marshal(answers.pop(0), 0))
        while answers:
            header = await reader.readexactly(7)
            await reader.readexactly(int.from_bytes(header[3:7], "big") + 1)
            answer = answers.pop(0)
            if answer is not None:
                writer.write(frame.marshal(answer, 0))
        refused.set()
        await reader.read()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def end_of_connect(port, turns):
    """Return how connect() ends that is cancelled so many turns after the refusal was sent."""
    refused.clear()
    connecting = asyncio.create_task(Connection(f"amqp://guest:guest@127.0.0.1:{port}/").connect())
    await refused.wait()
    for _ in range(turns):
        await asyncio.sleep(0)
    was_running = connecting.cancel()
    await asyncio.wait([connecting])
    if not was_running:
        return None
    return "CancelledError" if connecting.cancelled() else type(connecting.exception()).__name__


async def main():
    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    ends = {await end_of_connect(port, turns) for turns in range(TURNS)} - {None}
    print("cancelled while it connects, it ends with", " or ".join(sorted(ends)))


refused = asyncio.Event()
asyncio.run(main())
PY
)
printf '%s\n' "$seen"
expected='cancelled while it connects, it ends with CancelledError or InvalidFrameError'
if [ "$seen" != "$expected" ]; then
  printf '\nthis is not what was seen before:\n%s\n' "$expected" >&2
  exit 1
fi
