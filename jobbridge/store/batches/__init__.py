"""Batches: their rows, which of their jobs are open, and how many are in which status.

In come blocks that begin and end, out goes whether a batch has ended. Nothing is counted as jobs end (decision 0034).
"""
