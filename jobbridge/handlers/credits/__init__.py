"""Credits: what clients have paid in advance, until it is used or expires."""
