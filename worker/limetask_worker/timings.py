"""Times, in seconds, that must keep their order between workers and recorder.

In a cluster a message can be here as new and elsewhere as redelivered. Whoever has it as new begins without asking, at
most this long after the broker has decided on its delivery: the lag that goes unnoticed, and the time for its start.
The recorder waits for longer, since the start must have arrived.
"""

UNNOTICED_LAG_SECONDS = 1.5
"""Deliveries that come later than this, as from a node that was cut off, are noticed, and the recorder is asked."""

SURE_SECONDS = 1.5
"""A worker that got a message for the first time records its start within this time, or asks the recorder first."""

FORMER_HOLDER_SECONDS = 4.0
"""So long the recorder waits for the start of whoever held a message before it lets another worker begin the task."""
