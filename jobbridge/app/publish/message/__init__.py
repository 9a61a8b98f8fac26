"""What a job's message is made of: checks of what is given, what its row tells of it, its form for Temporal."""
