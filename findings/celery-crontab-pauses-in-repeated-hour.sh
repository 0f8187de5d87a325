#!/usr/bin/env bash
# Version:      Celery 5.7.0, with tzdata 2026.3
# Good guess:   `crontab(minute="*/30")` is due every half hour, whatever the clocks do: the instants are half an hour
#               apart in summer time, in winter time and between them. cron runs such a rule through the repeated hour.
# What happens: on the day on which the clocks go back it is not due in the repeated hour at all: after 02:30 summer
#               time it is next due at 03:00 winter time, 90 minutes later.
# So:           set `timezone` to UTC for what must come at equal distances, or use an interval in seconds.
#
# The schedule is asked as beat asks it, `is_due` with the last run, once a minute by a clock of the script. It needs no
# broker. Exits with 1 if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check celery==5.7.0 tzdata==2026.3

seen=$(PYTHONTZPATH='' "$folder/venv/bin/python" - <<'PY'
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from celery import Celery
from celery.schedules import crontab

BERLIN = ZoneInfo("Europe/Berlin")  # in 2026 its clocks go from 03:00 to 02:00 on 25 October

for zone in ("Europe/Berlin", "UTC"):
    app = Celery("shop")
    app.conf.timezone = zone
    clock = datetime(2026, 10, 24, 23, 45, tzinfo=UTC)
    schedule = crontab(minute="*/30", app=app, nowfun=lambda: clock.astimezone(ZoneInfo(zone)))
    last, runs = schedule.now(), []
    while len(runs) < 4:
        clock += timedelta(minutes=1)
        if schedule.is_due(last).is_due:
            last = schedule.now()
            runs.append(clock)
    print(f"timezone {zone}:", ", ".join(f"{run.astimezone(BERLIN):%H:%M%z}" for run in runs))
PY
)
printf '%s\n' "$seen"
expected='timezone Europe/Berlin: 02:00+0200, 02:30+0200, 03:00+0100, 03:30+0100
timezone UTC: 02:00+0200, 02:30+0200, 02:00+0100, 02:30+0100'
if [ "$seen" != "$expected" ]; then
  printf '\nthis is not what was seen before:\n%s\n' "$expected" >&2
  exit 1
fi
