"""What people do to jobs and schedules; each action is on record."""
