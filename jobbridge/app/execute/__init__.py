"""One attempt: the claim of its row, what the handler is given, whose tenant it works for, what it made.

In comes a request of Celery's tracer, on either engine; out go events for the recorder.
"""
