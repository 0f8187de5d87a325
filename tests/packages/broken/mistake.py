"""Cannot be imported."""

raise RuntimeError("a mistake at import")
