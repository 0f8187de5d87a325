#!/usr/bin/env bash
# Version:      croniter 7.0.0 beside cronsim 2.8, with tzdata 2026.3
# Good guess:   a job at a fixed time, `30 2 * * *`, runs once a day, also on the day on which the clocks go back and
#               02:30 comes twice. So says the manual page of Debian's cron (8), and only rules with a star in hour or
#               minute follow the clock through the repeated hour.
# What happens: croniter gives both: 02:30 summer time, and 02:30 an hour later. cronsim gives the first one alone.
# So:           whoever sends invoices by such a rule compares days, or takes another library.
#
# It needs no server. Exits with 1 if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check croniter==7.0.0 cronsim==2.8 tzdata==2026.3

seen=$(PYTHONTZPATH='' "$folder/venv/bin/python" - <<'PY'
from datetime import datetime
from itertools import islice
from zoneinfo import ZoneInfo

from croniter import croniter
from cronsim import CronSim

BERLIN = ZoneInfo("Europe/Berlin")  # in 2026 its clocks go from 03:00 to 02:00 on 25 October
asked = datetime(2026, 10, 24, 12, tzinfo=BERLIN)

for name, runs in [
    ("croniter", croniter("30 2 * * *", asked, ret_type=datetime)),
    ("cronsim", CronSim("30 2 * * *", asked)),
]:
    print(f"{name}:", ", ".join(f"{run:%d.%m. %H:%M%z}" for run in islice(runs, 3)))
PY
)
printf '%s\n' "$seen"
expected='croniter: 25.10. 02:30+0200, 25.10. 02:30+0100, 26.10. 02:30+0100
cronsim: 25.10. 02:30+0200, 26.10. 02:30+0100, 27.10. 02:30+0100'
if [ "$seen" != "$expected" ]; then
  printf '\nthis is not what was seen before:\n%s\n' "$expected" >&2
  exit 1
fi
