#!/usr/bin/env bash
# Version:      APScheduler 3.11.3, with tzdata 2026.3
# Good guess:   a cron trigger in a zone with summer time is at risk at the times that a change of clocks leaves out or
#               repeats (02:00 to 03:00 in Berlin). A job at 00:00 or 00:30 exists once on every day, and runs once.
# What happens: after the change in spring it leaves a run out. A job at 00:30 runs on the day of the change, and next
#               on the day after the following one. A job at 00:00 on the first of each month runs on 1 March and next
#               on 1 May: the run of April is gone. A job at 01:00, an hour later, misses nothing.
# So:           let such jobs run in UTC, or at an hour that the change does not push over midnight.
#
# The trigger is asked as its scheduler asks it: with the last run, and a time just after that. It needs no server.
# Exits with 1 if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check apscheduler==3.11.3 tzdata==2026.3

seen=$(PYTHONTZPATH='' "$folder/venv/bin/python" - <<'PY'
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from apscheduler.triggers.cron import CronTrigger

BERLIN = ZoneInfo("Europe/Berlin")  # in 2026 its clocks go from 02:00 to 03:00 on 29 March

for rule, asked in [
    ("30 0 * * *", datetime(2026, 3, 28, 12, tzinfo=BERLIN)),
    ("0 0 1 * *", datetime(2026, 2, 15, tzinfo=BERLIN)),
    ("0 1 * * *", datetime(2026, 3, 28, 12, tzinfo=BERLIN)),
]:
    trigger = CronTrigger.from_crontab(rule, timezone=BERLIN)
    runs = [trigger.get_next_fire_time(None, asked)]
    while len(runs) < 3:
        runs.append(trigger.get_next_fire_time(runs[-1], runs[-1] + timedelta(milliseconds=1)))
    print(f"{rule}:", ", ".join(f"{run:%d.%m. %H:%M}" for run in runs))
PY
)
printf '%s\n' "$seen"
expected='30 0 * * *: 29.03. 00:30, 31.03. 00:30, 01.04. 00:30
0 0 1 * *: 01.03. 00:00, 01.05. 00:00, 01.06. 00:00
0 1 * * *: 29.03. 01:00, 30.03. 01:00, 31.03. 01:00'
if [ "$seen" != "$expected" ]; then
  printf '\nthis is not what was seen before:\n%s\n' "$expected" >&2
  exit 1
fi
