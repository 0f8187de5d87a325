"""Every figure that can be in a table: its name in the results, what it is called, its unit, its digits."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """One number of one system in one run."""

    key: str
    title: str
    unit: str
    digits: int = 0


@dataclass(frozen=True)
class Group:
    """The columns of one table."""

    title: str
    figures: tuple[Figure, ...]


SEND_EACH = Figure("send_each", "send one by one", "/s")
SEND_MANY = Figure("send_many", "send many", "/s")
DRAIN = Figure("drain", "no-op, first to last start", "/s")
DRAIN_READABLE = Figure("drain_readable", "no-op, until all ends are readable", "/s")
DRAIN_1_MS = Figure("drain_sleep_1_ms", "1 ms sleep, first to last start", "/s")
SLOTS_USED = Figure("slots_used", "10 ms sleep, share of slots / duration", "%")

CPU_WORKER = Figure("cpu_worker", "worker", "µs")
CPU_RECORDER = Figure("cpu_recorder", "recorder", "µs")
CPU_BROKER = Figure("cpu_broker", "broker", "µs")
CPU_STORE = Figure("cpu_store", "PostgreSQL or Redis", "µs")

MEMORY_PROCESS = Figure("memory_process", "a task process", "MiB")
MEMORY_WORKER = Figure("memory_worker", "the whole worker", "MiB")
MEMORY_CLIENT = Figure("memory_client", "a client, above bare Python", "MiB")
IMPORT = Figure("import", "import", "ms")

IDLE_P50 = Figure("idle_p50", "idle p50", "ms", 1)
IDLE_P95 = Figure("idle_p95", "idle p95", "ms", 1)
IDLE_P99 = Figure("idle_p99", "idle p99", "ms", 1)
HALF_P50 = Figure("half_p50", "half load p50", "ms", 1)
HALF_P95 = Figure("half_p95", "half load p95", "ms", 1)
HALF_P99 = Figure("half_p99", "half load p99", "ms", 1)
HALF_LOAD = Figure("half_load", "that load", "/s")
READS = Figure("reads", "ends read", "/s")

SENDING = Group("Sending", (SEND_EACH, SEND_MANY))
RUNNING = Group("Running what is queued", (DRAIN, DRAIN_READABLE, DRAIN_1_MS, SLOTS_USED))
PROCESSOR = Group("Processor time of a no-op task", (CPU_WORKER, CPU_RECORDER, CPU_BROKER, CPU_STORE))
ROUND_TRIP = Group(
    "From sending to knowing the end",
    (IDLE_P50, IDLE_P95, IDLE_P99, HALF_P50, HALF_P95, HALF_P99, HALF_LOAD, READS),
)
MEMORY = Group("Memory, and time to import", (MEMORY_PROCESS, MEMORY_WORKER, MEMORY_CLIENT, IMPORT))

GROUPS = (SENDING, RUNNING, PROCESSOR, ROUND_TRIP, MEMORY)
