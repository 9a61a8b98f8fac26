"""Traces and structured logs of jobs; see docs/observability.md. Nothing here is imported unless it is switched on."""
