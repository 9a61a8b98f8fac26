"""Who may use the monitor and the API: tokens with their audit, links for customers, idempotency keys.

In come secrets and names, out go rights; no secret is stored.
"""
