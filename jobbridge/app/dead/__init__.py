"""Jobs and messages that were given up: found by type and error, sent again at a rate, deleted."""
