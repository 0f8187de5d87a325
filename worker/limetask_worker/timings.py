"""Times, in seconds, that must keep their order between workers and recorder."""

SURE_SECONDS = 2.0
"""A worker that got a message for the first time records its start within this time, or asks the recorder first."""

FORMER_HOLDER_SECONDS = 3.0
"""So long the recorder waits for the start of whoever held a message before it lets another worker begin the task."""
