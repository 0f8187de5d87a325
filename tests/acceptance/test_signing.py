"""Workers with signing keys run what was signed, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import msgpack
import pika

from limetask import Settings, Status, configure, get_status, ids, send_task
from limetask.topology import Names
from tests.broker import Letter, channel_to, declare_namespace, take_all
from tests.waiting import eventually
from tests.worker import Worker

OLD_KEY, NEW_KEY = "o" * 64, "n" * 64


def forge(settings: Settings, task_id: str, headers: dict[str, object]) -> None:
    """Publish a task message as somebody would who may write to the exchange and has no key."""
    names = Names(settings.namespace)
    identity = {"limetask": 1, "task_id": task_id, "task": "shop.tasks.unknown", "app": "acme", "attempt": 1}
    properties = pika.BasicProperties(headers=identity | headers, content_type="application/msgpack", delivery_mode=2)
    with channel_to(settings.broker_url) as channel:
        body = msgpack.packb({"args": [], "kwargs": {}})
        channel.basic_publish(names.tasks_exchange, names.task_queue("default"), body, properties)


def take_letters(settings: Settings, count: int) -> list[Letter]:
    return take_all(settings.broker_url, Names(settings.namespace).dead_queue, count)


def test_a_forged_message_does_not_run_and_harms_nobody(
    settings: Settings, start_worker: Callable[..., Worker]
) -> None:
    """It is a dead letter with its reason and as it was; the task whose id it bears is not made FAILURE by it."""
    signing = replace(settings, signing_keys=f"{NEW_KEY},{OLD_KEY}")
    configure(signing)
    declare_namespace(settings.broker_url, settings.namespace)
    victim = ids.new_task_id("acme")
    forge(settings, victim, {})
    forge(settings, victim, {"signature": "0123abcd:" + "0" * 64})
    worker = start_worker(signing, "shop", "--processes", "1")
    letters = take_letters(settings, 2)
    assert {letter.headers["reason"].partition(":")[0].partition(",")[0] for letter in letters} == {
        "unsigned",
        "signed with another key",
    }
    assert [msgpack.unpackb(letter.body) for letter in letters] == [{"args": [], "kwargs": {}}] * 2
    signed = send_task("shop.tasks.add", "acme", 2, 3)
    assert signed.wait(20).result == 5
    eventually(lambda: signed.refresh().is_completed())  # the recorder has seen whatever was published before
    assert get_status(victim, "acme").status is Status.PENDING
    assert OLD_KEY not in worker.log
    assert NEW_KEY not in worker.log


def test_senders_move_to_a_new_key_while_workers_run(settings: Settings, start_worker: Callable[..., Worker]) -> None:
    """A worker that has both keys runs what either signed; one that has the new one only refuses the old one's."""
    both, old, new = (replace(settings, signing_keys=keys) for keys in (f"{OLD_KEY},{NEW_KEY}", OLD_KEY, NEW_KEY))
    worker = start_worker(both, "shop", "--processes", "1")
    for sender in (old, new, both):
        configure(sender)
        assert send_task("shop.tasks.add", "acme", 2, 3).wait(20).result == 5
    worker.stop()
    start_worker(new, "shop", "--processes", "1")
    configure(old)
    send_task("shop.tasks.add", "acme", 2, 3)
    [letter] = take_letters(settings, 1)
    assert "signed with another key" in letter.headers["reason"]


def test_a_task_that_a_worker_moves_stays_signed(settings: Settings, start_worker: Callable[..., Worker]) -> None:
    """A worker that puts a task into the queue of its declaration signs it anew, so it runs."""
    signing = replace(settings, signing_keys=OLD_KEY)
    configure(signing)
    start_worker(signing, "shop", "--processes", "1")
    assert send_task("shop.tasks.tidy", "acme").wait(20).result == "tidy"
