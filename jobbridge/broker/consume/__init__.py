"""Taking messages and settling them: claim, prefetch, window, acknowledge, and the sweep after the dead."""
