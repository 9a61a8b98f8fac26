"""Workers, the services that look after jobs, pauses of queues, and what is deleted when its time is over.

In comes who is here and what was paused, out goes who lives and what each serves.
"""
