"""The runner API: schedule, cancel and look at jobs, the same on both engines."""
