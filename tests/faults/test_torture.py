"""Three daemons under a load of all kinds of tasks, whose processes are stopped, continued and killed at random.

The choice is that of a seed. LIMETASK_TORTURE_SEED names one, LIMETASK_TORTURE_SECONDS how long it takes.
"""

from __future__ import annotations

import os
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import pytest

from limetask import Settings
from tests.faults.conftest import OpenLedger, StartWorker
from tests.faults.form import in_form
from tests.faults.ledger import Ledger, Verdict, now
from tests.faults.model import Deeds, Judgement, Look, judge
from tests.faults.schedule import orders, schedule
from tests.faults.torture import Senders, Torturer, Watcher, lives_of, look_of_event

_SECONDS = float(os.environ.get("LIMETASK_TORTURE_SECONDS", in_form(30, 240)))
_SEED = int(os.environ.get("LIMETASK_TORTURE_SEED", in_form(1, random.randrange(1_000_000))))
_DAEMONS = 3
_PROCESSES = in_form(["--processes", "1"], [])
# So that the tasks of a host that was killed as a whole have ended soon.
_WORKER_TIMEOUT = 10.0
_RATE = 8.0
# The longest body, the time until its silent host counts as dead, and the delays after which a message asks again.
_REST_SECONDS = 90.0
_KINDS = [f"faulty.mixed.{kind}{form}" for kind in ("early", "late") for form in ("", "_async", "_within_limit")] + [
    "faulty.mixed.early_forking"
]


def looks_at_events(ledger: Ledger) -> Mapping[str, Sequence[Look]]:
    looks: defaultdict[str, list[Look]] = defaultdict(list)
    for task_id, events in list(ledger.events.by_task.items()):
        looks[task_id] += map(look_of_event, events)
    return looks


def torture(ledger: Ledger, employ: StartWorker) -> tuple[Verdict, Judgement]:
    """Do everything that the seed says, and return what the ledger and the model say of it."""
    deeds = Deeds(ledger.settings.worker_timeout, ledger.settings.max_deliveries)
    torturer = Torturer(partial(employ, ledger, *_PROCESSES, ready=False), _DAEMONS, deeds)
    watcher = Watcher(ledger)
    try:
        with watcher:
            with Senders(ledger, orders(_SEED, _KINDS), _RATE):
                ledger.wait_for_starts(_DAEMONS)
                torturer.follow(schedule(_SEED, _SECONDS, _DAEMONS, _WORKER_TIMEOUT))
            fault_ended = now()
            ledger.wait_for_ends(_REST_SECONDS)
        verdict = ledger.check(
            f"processes stopped and killed at random for {_SECONDS:g} s, seed {_SEED}",
            fault_ended,
            were_silent=True,  # the model knows which
        )
        torturer.assert_nothing_is_left()
        watcher.look_at_all()
        return verdict, judge(lives_of(ledger), watcher.seen, looks_at_events(ledger), deeds)
    finally:
        print(*torturer.done, sep="\n")


def test_statuses_only_go_forward_whatever_is_done_to_the_processes(
    settings: Settings, open_ledger: OpenLedger, employ: StartWorker
) -> None:
    """Nothing is lost or stuck, no early body begins twice, and no status and no event has ever told an untruth."""
    print(f"again: LIMETASK_TORTURE_SEED={_SEED} LIMETASK_TORTURE_SECONDS={_SECONDS:g} scripts/test {__file__} -n 0")
    ledger = open_ledger(replace(settings, worker_timeout=_WORKER_TIMEOUT))
    verdict, judgement = torture(ledger, employ)
    print(f"failures: {dict(verdict.failures)}; {dict(judgement.counted)}")
    assert not judgement.wrong, f"{len(judgement.wrong)} untruths:\n" + "\n".join(judgement.wrong[:20])
    assert set(verdict.failures) <= {"WorkerLost", "BegunTooOftenError"}


pytestmark = pytest.mark.timeout(_SECONDS + 300)
