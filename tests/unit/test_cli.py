"""The commands `limetask-worker` and `limetask setup`: what they tell and refuse, before they start anything."""

from __future__ import annotations

from importlib.metadata import version

import pytest
from click.testing import CliRunner, Result

from limetask.cli.command import limetask
from limetask_worker.cli.command import main

pytestmark = pytest.mark.usefixtures("_restored_logging")


def invoke(*arguments: str, **environment: str) -> Result:
    return CliRunner().invoke(main, arguments, env=environment)


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_tells_how_it_is_used(option: str) -> None:
    """The help shows an example, every option and where the services are looked for."""
    result = invoke(option)
    assert result.exit_code == 0
    assert "limetask-worker my_package" in result.output
    for part in [
        "--processes",
        "--slots",
        "--queues",
        "--roles",
        "--grace",
        "--log-format",
        "--log-level",
        "--version",
        "asap,default,background",
        "tasks,recorder",
        "LIMETASK_BROKER_URL",
        "LIMETASK_STORE_URL",
    ]:
        assert part in result.output


def test_version_is_the_distributions() -> None:
    """The version is that of the installed limetask."""
    result = invoke("--version")
    assert (result.exit_code, result.output) == (0, f"limetask-worker, version {version('limetask')}\n")


@pytest.mark.parametrize(
    "arguments", [[], ["--roles", "tasks"], ["--roles", "recorder,tasks"], ["--processes", "2"]], ids=str
)
def test_running_tasks_needs_a_package(arguments: list[str]) -> None:
    """Without a package there is nothing to run: it is told what to type."""
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert "which package holds your tasks? Try: limetask-worker my_package" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--queues", "urgent"], "'urgent' is none of asap, default, background"),
        (["--queues", "asap,urgent"], "'urgent' is none of asap, default, background"),
        (["--queues", ""], "'' is none of asap, default, background"),
        (["--roles", "scheduling"], "'scheduling' is none of tasks, recorder"),
        (["--processes", "0"], "0 is not in the range"),
        (["--processes", "many"], "'many' is not a valid integer"),
        (["--slots", "0"], "0 is not in the range"),
        (["--slots", "1.5"], "'1.5' is not a valid integer"),
        (["--grace", "-1"], "-1.0 is not in the range"),
        (["--grace", "nan"], "'nan' is not a number of seconds"),
        (["--grace", "inf"], "inf is not in the range"),
        (["--grace", "1e400"], "inf is not in the range"),
        (["--max-tasks-per-child", "9" * 30], "is not in the range"),
        (["--max-memory-per-child", "9" * 30], "is not in the range"),
        (["--grace", "soon"], "'soon' is not a valid float"),
        (["--log-format", "xml"], "'xml' is not one of 'text', 'json'"),
        (["--log-level", "loud"], "'loud' is not one of 'debug', 'info', 'warning', 'error'"),
        (["--slot", "3"], "No such option"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_wrong_option_is_told(arguments: list[str], message: str) -> None:
    """An option that does not exist or has a wrong value is refused with exit code 2 and the value."""
    result = invoke(*arguments, "my_package")
    assert result.exit_code == 2
    assert message in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"LIMETASK_BROKER_URL": "sqlite:///status.db"}, "amqp://user:password@host:5672/vhost"),
        ({"LIMETASK_HEARTBEAT": "soon"}, "LIMETASK_HEARTBEAT is 'soon'"),
        ({"LIMETASK_NAMESPACE": "a b"}, "namespace 'a b' must be words"),
    ],
    ids=str,
)
def test_a_wrong_setting_is_told_before_anything_starts(environment: dict[str, str], message: str) -> None:
    """A setting that cannot be right ends the command with exit code 1 and its message, without a traceback."""
    result = invoke("my_package", **environment)
    assert result.exit_code == 1
    assert message in result.output
    assert "Traceback" not in result.output


def test_setup_tells_what_it_is_for() -> None:
    """Its help has an example, who runs it when, and every option; it is listed among the commands."""
    told = CliRunner().invoke(limetask, ["setup", "--help"])
    assert told.exit_code == 0
    assert [part for part in ["limetask setup", "permission to configure", "--json"] if part not in told.output] == []
    assert "setup" in CliRunner().invoke(limetask, ["--help"]).output.partition("Commands:")[2]


@pytest.mark.parametrize("options", [[], ["--json"]], ids=str)
def test_setup_without_a_broker_is_an_error(options: list[str]) -> None:
    """Without a broker it ends with exit code 1, and does not say that anything exists."""
    unreachable = {"LIMETASK_BROKER_URL": "amqp://127.0.0.1:1", "LIMETASK_CONNECT_TIMEOUT": "0.3"}
    refused = CliRunner().invoke(limetask, ["setup", *options], env=unreachable)
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert refused.stderr.startswith("Error: no RabbitMQ at 127.0.0.1:1")


@pytest.mark.parametrize(
    ("command", "parts"),
    [
        (["handlers"], ["limetask handlers prune", "list", "prune", "@event_handler"]),
        (["handlers", "list"], ["limetask handlers list", "--json"]),
        (["handlers", "prune"], ["limetask handlers prune --older-than 2d", "--older-than", "--yes", "--json", "10m"]),
    ],
    ids=str,
)
def test_help_for_handlers_teaches(command: list[str], parts: list[str]) -> None:
    """Each help has an example and every option; the group is listed among the commands."""
    told = CliRunner().invoke(limetask, [*command, "--help"])
    assert told.exit_code == 0
    assert [part for part in parts if part not in told.output] == []
    assert "handlers" in CliRunner().invoke(limetask, ["--help"]).output.partition("Commands:")[2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["a.b", "--older-than", "1h"], "give either NAMEs or --older-than"),
        (["--older-than", "soon"], "'soon' is no time span such as 90s, 30m, 12h, 2d or 1w"),
    ],
    ids=str,
)
def test_handlers_are_chosen_in_one_way(options: list[str], message: str) -> None:
    """Nothing is pruned by names and an age at once, or by an age that is none."""
    refused = CliRunner().invoke(limetask, ["handlers", "prune", *options])
    assert refused.exit_code == 2
    assert message in refused.output
