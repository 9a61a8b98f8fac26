"""Schedules: declared in code, changed by callers, fired by beat; each fire makes one job."""
