"""The sections on running more than one task: twice, one after the other, and a thousand at once."""

from __future__ import annotations

import statistics
import time

from crm import actions
from crm.application import CrmApplication
from crm.tasks import lime

from lime_task import TaskStatus

from .screen import begin, check, console, progress_bar, show_status
from .stage import Stage, column, described, won_values

ROUND_TRIPS = 100
BULK_TASKS = 1000


def recalculate(app: CrmApplication) -> TaskStatus:
    """Send the task that is acknowledged late."""
    return lime.recalculate_revenue.send(app).wait(timeout=30)


def run_late_task_twice(stage: Stage) -> None:
    """Show that running an idempotent task twice does no harm."""
    sentence = "If its worker dies, such a task is run again. It must be idempotent, as this is."
    begin("Late acknowledgement", sentence, recalculate)
    before = stage.snapshot()
    first = recalculate(stage.nordic_foods)
    show_status(first)
    stage.show_event(first)
    revenues = column(stage.nordic_foods, "company", "revenue")
    wanted = {("nordic-foods", "company", number) for number in revenues}
    check(stage.changed_since(before) == wanted, f"the {len(wanted)} companies of nordic-foods have changed")
    won = won_values("nordic-foods")
    check(revenues == {number: won[number] for number in revenues}, "each revenue is the sum of the won deals")
    before = stage.snapshot()
    second = recalculate(stage.nordic_foods)
    stage.show_event(second)
    check(second.result == first.result, "the second run has the same result")
    check(not stage.changed_since(before), "and has changed nothing")


def round_trip(app: CrmApplication) -> TaskStatus:
    """Send a task and wait for its end."""
    return lime.get_lime_company.send(app, 1001).wait(timeout=30)


def measure_round_trips(stage: Stage) -> None:
    """Measure how long it takes to send a task and know its end."""
    sentence = "wait() returns as soon as the task's event arrives, without polling."
    begin("How long does it take?", sentence, round_trip)
    statuses, milliseconds = [], []
    for _ in range(ROUND_TRIPS):
        started = time.perf_counter()
        statuses.append(round_trip(stage.nordic_foods))
        milliseconds.append((time.perf_counter() - started) * 1000)
    list(stage.events.events_of(statuses))
    median, slowest = statistics.median(milliseconds), max(milliseconds)
    console.print(f"{ROUND_TRIPS} round trips, one after the other: median {median:.1f} ms, slowest {slowest:.1f} ms")
    wanted = described("nordic-foods", 1001)
    check(all(status.result == wanted for status in statuses), f"all {ROUND_TRIPS} tasks have the right result")


def rate_many_companies(stage: Stage) -> None:
    """Send many tasks at once."""
    sentence = 'Half of them for each application, with @task(qos="background").'
    begin(f"{BULK_TASKS} tasks at once", sentence, actions.rate_companies)
    company_ids = range(1001, 1001 + BULK_TASKS // 2)
    apps = (stage.nordic_foods, stage.alpine_tools)
    before = stage.snapshot()
    started = time.perf_counter()
    statuses = [status for app in apps for status in actions.rate_companies(app, company_ids)]
    sent_after = time.perf_counter() - started
    with progress_bar() as progress:
        events = progress.track(stage.events.events_of(statuses), BULK_TASKS, description="events")
        keys = {event.routing_key for event in events}
    ended_after = time.perf_counter() - started
    console.print(f"sent after {sent_after:.2f} s, all events here after {ended_after:.2f} s")
    check(keys == {"core.task.crm.tasks.lime.rate_company.success.v1"}, f"all {BULK_TASKS} events say success")
    wanted = {(app.identifier, "company", company_id) for app in apps for company_id in company_ids}
    check(stage.changed_since(before) == wanted, f"exactly these {BULK_TASKS} rows have changed")
    check(all(_are_rated_right(app, company_ids) for app in apps), "each rating is right, in both databases")


def _are_rated_right(app: CrmApplication, company_ids: range) -> bool:
    """Compare the ratings in a database with the won deals in the data files."""
    won, ratings = won_values(app.identifier), column(app, "company", "rating")
    wanted = {number: "A" if won[number] >= 100_000 else "B" if won[number] else "C" for number in company_ids}
    return wanted.items() <= ratings.items()
