#!/usr/bin/env bash
# Version:      pika 1.4.4 (CPython 3.11 and later)
# Good guess:   a number in a message's headers arrives in Python as what was sent: an AMQP double of 1.5 as the float
#               1.5, a long-long of 1 (Go's int64, Java's Long) as the int 1.
# What happens: a float or a double arrives as a whole number, its fraction is cut off without a word. A long-long
#               arrives as a subclass of int whose repr has an L, as Python 2 wrote it, so `type(value) is int` is
#               False, and a log line or a key made with repr() reads "1L".
# So:           read headers of programs in other languages with a decoder of your own, or have fractions sent as text.
#
# It needs no broker: pika's own decoder gets the bytes that a broker would deliver. Exits with 1 if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pika==1.4.4

seen=$("$folder/venv/bin/python" - <<'PY'
import struct

from pika import data


def header(kind: bytes, packed: bytes) -> object:
    """Decode a table with one field, as it comes over the wire."""
    field = bytes([len(b"n")]) + b"n" + kind + packed
    return data.decode_table(struct.pack(">I", len(field)) + field, 0)[0]["n"]


for name, kind, packed in [
    ("double 1.5", b"d", struct.pack(">d", 1.5)),
    ("float 0.25", b"f", struct.pack(">f", 0.25)),
    ("long-long 1", b"l", struct.pack(">q", 1)),
    ("long 1", b"I", struct.pack(">i", 1)),
]:
    value = header(kind, packed)
    print(f"{name}: {value!r}, type is int: {type(value) is int}")
PY
)
printf '%s\n' "$seen"
expected='double 1.5: 1L, type is int: False
float 0.25: 0L, type is int: False
long-long 1: 1L, type is int: False
long 1: 1, type is int: True'
if [ "$seen" != "$expected" ]; then
  printf '\nthis is not what was seen before:\n%s\n' "$expected" >&2
  exit 1
fi
