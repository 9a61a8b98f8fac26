"""Jobs and schedules that change sides."""
