"""Between the engines: `run` moves schedules and jobs, and compares both sides; the others do its parts."""
