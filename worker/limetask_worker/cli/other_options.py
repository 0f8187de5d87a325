"""What the options of `celery worker` are called here, for who tries those."""

from __future__ import annotations

import click

_PACKAGES = "name the packages that hold your tasks, without an option: limetask-worker my_package"
_LEVEL = "it is --log-level"
_NUMBERS = "it is --processes and, for the tasks in each, --slots"
_OPTIONS = {
    "-A": _PACKAGES,
    "--app": _PACKAGES,
    "-I": _PACKAGES,
    "--include": _PACKAGES,
    "-c": _NUMBERS,
    "--concurrency": _NUMBERS,
    "--autoscale": _NUMBERS,
    "-P": "plain functions run in threads of processes, `async def` on a loop",
    "--pool": "plain functions run in threads of processes, `async def` on a loop",
    "-Q": "it is --queues",
    "-l": _LEVEL,
    "--loglevel": _LEVEL,
    "-f": "logs go to standard error",
    "--logfile": "logs go to standard error",
    "-B": "limetask has no scheduler",
    "--beat": "limetask has no scheduler",
    "-n": "workers are named by their host and process",
    "--hostname": "workers are named by their host and process",
    "-D": "it runs in the foreground, for a service manager to watch",
    "--detach": "it runs in the foreground, for a service manager to watch",
    "-b": "it is the environment variable LIMETASK_BROKER_URL",
    "--broker": "it is the environment variable LIMETASK_BROKER_URL",
}


class WorkerCommand(click.Command):
    """A command that says what an option of `celery worker` is called here."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as exc:
            hint = _OPTIONS.get(exc.option_name)
            if hint is None:
                raise
            raise click.UsageError(f"No such option {exc.option_name!r}: {hint}", ctx) from exc
