"""Fan-out: a parent, its children, and the parent again when the last of them has ended."""
