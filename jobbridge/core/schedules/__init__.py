"""When schedules fire, and what becomes of a fire: pure rules, without a clock."""
