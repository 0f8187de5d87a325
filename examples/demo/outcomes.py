"""The sections on what comes of a task: a result, a failure or a mistake, and who gets to know of it."""

from __future__ import annotations

import json
import textwrap
from contextlib import suppress

from crm import actions
from crm.application import CrmApplication
from crm.tasks import lime

from lime_task import NotFoundError, Status, TaskStatus, get_status

from . import ROOT
from .screen import begin, check, console, show_status
from .stage import Stage, column, open_deals_of_others


def update_deals(stage: Stage) -> TaskStatus:
    """Update 50 deals in one task."""
    sentence = "A task gets its application with the database open; its result is a summary."
    begin("A bulk update", sentence, actions.hand_over)
    deal_ids = open_deals_of_others(stage.nordic_foods, 1234, 50)
    before = stage.snapshot()
    ended = stage.follow(actions.hand_over(stage.nordic_foods, deal_ids, 1234))
    wanted = "updated the sales representative of 50 deal entities to coworker with id 1234"
    check(ended.status is Status.SUCCESS and ended.result == wanted, "the result is the one in the documents")
    changed = stage.changed_since(before)
    check(
        changed == {("nordic-foods", "deal", deal_id) for deal_id in deal_ids} and len(changed) == 50,
        "these 50 rows of nordic-foods have changed, and none of alpine-tools",
    )
    owners = column(stage.nordic_foods, "deal", "sales_representative")
    check({owners[deal_id] for deal_id in deal_ids} == {1234}, "all 50 deals belong to coworker 1234")
    return ended


def fail_on_purpose(stage: Stage) -> None:
    """Have a task raise TaskFailure."""
    sentence = "The message of a TaskFailure is the result, for the person who asked."
    begin("A task that fails on purpose", sentence, lime._require_coworker)
    deal_ids = open_deals_of_others(stage.alpine_tools, 1234, 50)
    before = stage.snapshot()
    ended = actions.hand_over(stage.alpine_tools, deal_ids, 1234).wait(timeout=30)
    show_status(ended)
    stage.show_event(ended)
    check(
        ended.status is Status.FAILURE and ended.result == "alpine-tools has no coworker 1234",
        "the result says that alpine-tools has no such coworker",
    )
    check(not stage.changed_since(before), "nothing has changed in either database")


def ask_for_unknown_property(app: CrmApplication) -> TaskStatus:
    """Send a task that must fail: companies have no fax."""
    props = ["name", "fax"]
    return lime.get_lime_company.send(app, 1001, props).wait(timeout=30)


def fail_by_mistake(stage: Stage) -> None:
    """Have a task raise an exception that nobody thought of."""
    sentence = "Any other exception has no result; `error` is for the programmer."
    begin("A task that fails by mistake", sentence, ask_for_unknown_property)
    ended = ask_for_unknown_property(stage.nordic_foods)
    show_status(ended)
    error = ended.error
    assert error is not None, "a failed task has an error"
    console.print(f"error:  {error.type}: {error.message}")
    traceback = textwrap.indent(error.traceback.rstrip().replace(f"{ROOT}/", ""), "  | ")
    console.print(traceback, style="dim", markup=False, soft_wrap=True)
    stage.show_event(ended)
    check(ended.status is Status.FAILURE and ended.result is None, "the status is FAILURE without a result")
    check((error.type, error.message) == ("KeyError", "'fax'"), "the error is the KeyError")
    check("_concat_description" in error.traceback, "its traceback leads to the line")


def ask_for_another_applications_task(stage: Stage, ended: TaskStatus) -> None:
    """Ask for a task with the other application's name."""
    begin("Whose task is it?", "Only the application that a task was sent for may read its status.")
    console.print("\n  actions.follow(task_id, 'alpine-tools')  # sent for nordic-foods\n")
    check(actions.follow(ended.id, "alpine-tools") is None, "the documents' loop ends with its error message")
    found = None
    with suppress(NotFoundError):
        found = get_status(ended.id, stage.alpine_tools)
    check(found is None, "get_status raises NotFoundError for alpine-tools")
    check(get_status(ended.id, "nordic-foods").is_completed(), "and finds the same id for nordic-foods")


def answer_browser(ended: TaskStatus) -> None:
    """Show a status as JSON."""
    begin("What a browser gets", "to_dict() is exactly id, status and result.", actions.answer)
    text = actions.answer(ended.id, "nordic-foods")
    console.print(text, soft_wrap=True)
    wanted = {"id": ended.id, "status": "SUCCESS", "result": ended.result}
    check(json.loads(text) == wanted, "the JSON holds the id, the status and the result of the bulk update")
