"""What is to go to another engine: waiting jobs, and schedules.

In: a connection in a transaction, and which are meant. Out: locked rows. A job is moved by the recorder
(`events.Moved`), a schedule by its own statement here.
"""
