"""Old brokers, read through kombu: what waits there is looked at, and removed when it is safe here.

One file per kind of broker; `opened` chooses. A source gives pages of messages, the oldest first, and removes those
that it is told to; what is not removed stays there.
"""
