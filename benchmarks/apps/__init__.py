"""Each system's tasks: one that does nothing, one that sleeps for a millisecond, one that sleeps for ten."""
