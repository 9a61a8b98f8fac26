"""Tenants: which there are, what each has, which are suspended, and how all rows of one are deleted."""
