"""What the CRM's web pages do with tasks: send them, follow them, and tell the browser how they are."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable, Sequence

import lime_task
from lime_task import TaskStatus, send_task, send_tasks

from .application import CrmApplication
from .tasks.lime import rate_company, update_sales_representative

logger = logging.getLogger(__name__)


def describe_company(my_limeapp: CrmApplication) -> TaskStatus:
    """Send a task by its name: the sender need not have the task's code."""
    task_name = "crm.tasks.lime.get_lime_company"
    task_status = send_task(task_name, my_limeapp, 1001)

    print("status:", task_status.status)
    print("result:", task_status.result)
    return task_status


def follow(task_id: str, app_name: str) -> TaskStatus | None:
    """Ask for a task's status until it has ended; all it takes is the task's id and the application's name."""
    try:
        task_status = lime_task.get_status(task_id, app_name)
        while not task_status.is_completed():
            time.sleep(0.2)
            task_status = lime_task.get_status(task_id, app_name)

        print("status:", task_status.status)
        print("result:", task_status.result)
        return task_status
    except lime_task.NotFoundError:
        logger.error("Couldn't find task %s for app %s", task_id, app_name)
        return None


def hand_over(app: CrmApplication, deal_ids: Sequence[int], coworker_id: int) -> TaskStatus:
    """Send the task itself, where the sender has its code: an editor and mypy then check the arguments."""
    return update_sales_representative.send(app, deal_ids, coworker_id)


def rate_companies(app: CrmApplication, company_ids: Iterable[int]) -> list[TaskStatus]:
    """Send a task for each company, all at once: far faster than one by one."""
    calls = [rate_company.prepare(app, company_id) for company_id in company_ids]
    return send_tasks(calls)


def answer(task_id: str, app_name: str) -> str:
    """Return what a browser gets that asks for a task."""
    task_status = lime_task.get_status(task_id, app_name)
    return json.dumps(task_status.to_dict(), indent=2)
