#!/usr/bin/env bash
# Version:      croniter 7.0.0 beside cronsim 2.8
# Good guess:   `0 0 */2 * 1` runs on the Mondays among the odd days. In crontab (5) day of month and day of week are
#               joined by OR only if both are restricted, and a field that begins with a star is not: Debian's cron, and
#               cronsim, which follows it, join the two by AND.
# What happens: croniter joins them by OR: every Monday, and every odd day. `day_or=False` gives AND, and gives it to
#               `0 0 13 * 5` as well, which cron runs on each 13th and each Friday.
# So:           no one setting of croniter reads all crontab lines as cron does; rules that are taken over from a
#               crontab and restrict both day fields are to be looked at one by one.
#
# It needs no server. Exits with 1 if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check croniter==7.0.0 cronsim==2.8

seen=$("$folder/venv/bin/python" - <<'PY'
from collections.abc import Iterator
from datetime import datetime
from itertools import takewhile

from croniter import croniter
from cronsim import CronSim

BEGIN, END = datetime(2026, 10, 31, 12), datetime(2026, 12, 1)


def in_november(runs: Iterator[datetime]) -> list[int]:
    return [run.day for run in takewhile(lambda run: run < END, runs)]


for rule in ("0 0 */2 * 1", "0 0 13 * 5"):
    print(rule)
    print("  cronsim             ", in_november(CronSim(rule, BEGIN)))
    for day_or in (True, False):
        print(f"  croniter day_or={day_or!s:5}", in_november(croniter(rule, BEGIN, day_or=day_or).all_next(datetime)))
PY
)
echo "$seen"
expected='0 0 */2 * 1
  cronsim              [9, 23]
  croniter day_or=True  [1, 2, 3, 5, 7, 9, 11, 13, 15, 16, 17, 19, 21, 23, 25, 27, 29, 30]
  croniter day_or=False [9, 23]
0 0 13 * 5
  cronsim              [6, 13, 20, 27]
  croniter day_or=True  [6, 13, 20, 27]
  croniter day_or=False [13]'
[ "$seen" = "$expected" ]
