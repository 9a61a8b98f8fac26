"""What durable jobs recorded, and what they wait for (decision 0032).

In come the steps of a running job and its suspensions; out go recorded values, and events to whoever waits for them.
"""
