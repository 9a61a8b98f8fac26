"""Things that are of no use any more: temporary forms, expired keys."""
