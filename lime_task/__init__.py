"""The documented import name of limetask: `from lime_task import task, send_task`."""

from limetask import *  # noqa: F403
from limetask import __all__ as __all__
