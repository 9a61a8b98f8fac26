"""Prepaid buckets of time: what was used of them in the running period."""
