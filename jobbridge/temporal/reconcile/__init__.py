"""Where rows and Temporal do not agree: looked at, shown, and settled."""
