"""`@task`: what it makes of a function."""

from __future__ import annotations

import asyncio
import copy
import functools
import inspect
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from limetask import (
    Application,
    ApplicationError,
    ArgumentsError,
    DeclarationError,
    DuplicateTaskError,
    MessageTooLargeError,
    NotFoundError,
    Task,
    TaskCall,
    TaskNameError,
    get_status,
    ids,
    send_task,
    send_tasks,
    task,
)
from limetask.registry import declared_tasks, find_task


def add(app: Application, left: int, right: int = 2) -> int:
    """Add two numbers."""
    return left + right


async def add_later(app: Application, left: int, *, right: int = 2) -> int:
    return left + right


def test_the_bare_decorator_declares_a_task() -> None:
    """`@task` alone makes a task with the default options."""
    made = task(add)
    assert isinstance(made, Task)
    assert (made.acks_late, made.qos, made.time_limit, made.is_async) == (False, "default", None, False)
    assert find_task(made.name) is made


def test_the_decorator_takes_options() -> None:
    """`@task(...)` makes a task with these options."""
    made = task(name="shop.add", acks_late=True, qos="asap", time_limit=1.5)(add)
    assert (made.name, made.acks_late, made.qos, made.time_limit) == ("shop.add", True, "asap", 1.5)
    assert find_task("shop.add") is made


def test_the_decorator_may_be_called_without_options() -> None:
    """`@task()` is the same as `@task`."""
    assert task()(add).name == task(add).name


def test_a_task_is_called_module_and_function_by_default() -> None:
    """The default name is the module's and the function's, without the class or function around it."""

    def inner(app: Application) -> None:
        pass

    assert task(add).name == f"{__name__}.add"
    assert task(inner).name == f"{__name__}.inner"


def test_one_function_may_be_several_tasks() -> None:
    """The same function can be declared under different names, with different options."""
    early, late = task(name="shop.early")(add), task(name="shop.late", acks_late=True)(add)
    assert (early.acks_late, late.acks_late) == (False, True)
    assert set(declared_tasks()) == {"shop.early", "shop.late"}


def test_a_task_stays_callable() -> None:
    """A declared function can be called as before, with positional and named arguments and its defaults."""
    made = task(add)
    app = Application("shop")
    assert (made(app, 1), made(app, 1, 3), made(app, left=1, right=4)) == (3, 4, 5)


def test_an_async_task_stays_awaitable() -> None:
    """A declared coroutine function gives a coroutine when it is called."""
    made = task(add_later)
    assert made.is_async
    assert asyncio.run(made(Application("shop"), 1, right=3)) == 4


def test_arguments_may_be_called_as_the_parameters_of_limetask() -> None:
    """A task may have named arguments `self`, `name`, `task`, `function`, `args` and `kwargs`."""

    def echo(app: Application, /, **values: Any) -> dict[str, Any]:
        return values

    made: Any = task(echo)
    values = {"self": 1, "name": 2, "task": 3, "function": 4, "args": 5, "kwargs": 6, "call": 7}
    assert made(Application("shop"), **values) == values
    assert made.prepare("shop", **values).kwargs == values


def test_a_task_looks_like_its_function() -> None:
    """Name, documentation, module and signature are those of the function, and the representation is the task's."""
    made: Any = task(name="shop.add")(add)
    assert (made.__name__, made.__qualname__, made.__doc__) == ("add", "add", "Add two numbers.")
    assert (made.__module__, made.__wrapped__) == (__name__, add)
    assert inspect.signature(made) == inspect.signature(add)
    assert repr(made) == "<Task shop.add>"


def test_attributes_of_the_function_do_not_become_the_tasks() -> None:
    """A function with an attribute `name` or `qos` does not change the task with it."""

    def odd(app: Application) -> None:
        pass

    odd.name = "no.such"  # type: ignore[attr-defined]
    odd.qos = "asap"  # type: ignore[attr-defined]
    made = task(odd)
    assert (made.name, made.qos) == (f"{__name__}.odd", "default")


def test_a_decorated_function_is_called_as_it_is() -> None:
    """Other decorators below `@task` stay in effect."""

    def doubled(function: Callable[..., int]) -> Callable[[Application, int, int], int]:
        @functools.wraps(function)
        def wrapper(app: Application, *args: Any) -> Any:
            return 2 * function(app, *args)

        return wrapper

    assert task(doubled(add))(Application("shop"), 1, 2) == 6


def test_a_prepared_call_holds_what_to_send() -> None:
    """`prepare` makes a TaskCall with task, application and arguments, and sends nothing."""
    made = task(add)
    call = made.prepare("shop", 1, right=3)
    assert isinstance(call, TaskCall)
    assert (call.task, call.app, call.args, call.kwargs) == (made, "shop", (1,), {"right": 3})


@pytest.mark.parametrize(
    "given",
    ["shop.add", int, Application("shop"), functools.partial(add), 3],
    ids=lambda value: type(value).__name__,
)
def test_the_decorator_wants_a_function(given: Any) -> None:
    """`@task("name")`, a class, a partial or any other object is refused as no function."""
    with pytest.raises(DeclarationError, match="must decorate a function"):
        task(given)


def test_a_task_is_not_declared_twice() -> None:
    """`@task` on a task is refused."""
    with pytest.raises(DeclarationError, match="must decorate a function"):
        task(task(add))


@pytest.mark.parametrize("name", ["add", "", "shop.*", "shop add.x", 3])
def test_a_wrong_name_is_refused(name: Any) -> None:
    """A name that cannot be sent is refused when the task is declared."""
    with pytest.raises(TaskNameError):
        task(name=name)(add)
    assert not declared_tasks()


@pytest.mark.parametrize("options", [{"acks_late": 1}, {"qos": "fast"}, {"time_limit": 0}], ids=str)
def test_a_wrong_option_is_refused(options: dict[str, Any]) -> None:
    """An option that cannot work is refused when the task is declared, and leaves nothing declared."""
    with pytest.raises(DeclarationError):
        task(**options)(add)
    assert not declared_tasks()


def test_two_tasks_of_one_name_are_refused() -> None:
    """A name that another function has is refused."""
    task(name="shop.add")(add)
    with pytest.raises(DuplicateTaskError):
        task(name="shop.add")(add_later)


class TestSendingNothing:
    """What cannot be sent is refused before anything is opened: these tests have no broker and no store."""

    @pytest.mark.parametrize("name", ["add", "", "shop.*", "a." + "x" * 300, None, 3])
    def test_a_wrong_name_is_not_sent(self, name: Any) -> None:
        """A name that no task can have is refused."""
        with pytest.raises(TaskNameError):
            send_task(name, "shop")

    @pytest.mark.parametrize("app", ["", " shop", None, 3, object()])
    def test_a_wrong_application_is_not_sent_for(self, app: Any) -> None:
        """What is no application is refused."""
        with pytest.raises(ApplicationError):
            task(add).send(app, 1)

    def test_wrong_arguments_are_not_sent(self) -> None:
        """Arguments that a message cannot carry are refused."""
        with pytest.raises(ArgumentsError, match="argument 'right'"):
            send_task("shop.add", "shop", 1, right=object())

    def test_too_many_bytes_are_not_sent(self) -> None:
        """Arguments over the limit are refused."""
        with pytest.raises(MessageTooLargeError):
            send_task("shop.add", "shop", "x" * 2_000_000)

    def test_a_task_of_the_started_program_is_not_sent(self) -> None:
        """A task of the module `__main__` is refused, with advice: no worker could import it."""

        def local(app: Application) -> None:
            pass

        local.__module__ = "__main__"
        with pytest.raises(TaskNameError, match=r"__main__\.local.*move it to a module, or give it a name"):
            task(local).send("shop")

    def test_one_wrong_call_keeps_all_from_being_sent(self) -> None:
        """`send_tasks` checks every call before it sends the first."""
        with pytest.raises(ArgumentsError, match="argument 2"):
            send_tasks([TaskCall("shop.add", "shop", (1,)), TaskCall("shop.add", "shop", (1, object()))])

    @pytest.mark.parametrize("key", [1, None, b"right", ("a",)])
    def test_a_name_that_is_not_text_is_not_sent(self, key: Any) -> None:
        """Named arguments whose names are not text are refused here: no worker could call a function with them."""
        with pytest.raises(ArgumentsError, match="kwargs"):
            send_tasks([TaskCall("shop.add", "shop", (), {key: 1})])

    def test_no_calls_are_no_tasks(self) -> None:
        """`send_tasks` of nothing gives nothing."""
        assert send_tasks([]) == []

    @pytest.mark.parametrize("task_id", ["", "no-uuid", None, 3, "01a1f86a-ff26-85e6-9272-bd3e1ea04304"])
    def test_a_wrong_id_has_no_status(self, task_id: Any) -> None:
        """An id that is malformed or another application's is not found, without a look into the store."""
        with pytest.raises(NotFoundError, match="'other' has no task"):
            get_status(task_id, "other")

    def test_the_status_of_a_wrong_application_cannot_be_asked(self) -> None:
        """What is no application is refused, even with an id."""
        with pytest.raises(ApplicationError):
            get_status(ids.new_task_id("shop"), object())  # type: ignore[arg-type]


@task
def in_a_module(app: Application) -> None:
    pass


class TestPickling:
    @pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
    def test_a_task_is_pickled_by_name(self, protocol: int) -> None:
        """A task, also one in a prepared call, is found again where it is declared, as a function is."""
        call = in_a_module.prepare("shop")
        assert pickle.loads(pickle.dumps(in_a_module, protocol)) is in_a_module
        assert pickle.loads(pickle.dumps(call, protocol)) == call
        assert b"in_a_module" in pickle.dumps(in_a_module, protocol)

    def test_a_task_is_copied_as_itself(self) -> None:
        """There is one task of a name: a copy, a deep one too, is the same."""
        assert copy.copy(in_a_module) is in_a_module
        assert copy.deepcopy([in_a_module]) == [in_a_module]

    def test_a_task_that_no_name_leads_to_is_refused(self) -> None:
        """A task in a function cannot be found elsewhere, and pickle says so."""

        def local(app: Application) -> None:
            pass

        with pytest.raises((pickle.PicklingError, AttributeError), match="local"):
            pickle.dumps(task(local))
