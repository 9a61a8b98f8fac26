"""Results: what follows from them, how one waits for them, their forms, and what else a job made."""
