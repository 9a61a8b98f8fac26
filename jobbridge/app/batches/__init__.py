"""Batches: jobs that are sent in one block, or join it later, and what follows when all have ended (decision 0034)."""
