"""What kombu loads in every process of an environment that has JobBridge: so it knows `jobbridge+postgresql://` there.

kombu has no entry point for transports, and takes no import path for one out of a URL (kombu 5.7, `connection`), but it
loads the entry points of `kombu.serializers` when it is about to speak with a broker. Tools that are not started by
`celery` and import nothing of ours (celery-exporter, a script with kombu alone) have the scheme by that.

The serializer that comes with it is JSON under a name of its own. Nobody needs it, and nobody accepts it unasked. This
must stay light, and must never break somebody's plain kombu.
"""

from __future__ import annotations

from kombu.utils import json

from jobbridge.broker import register

register()

#: As `kombu.serialization.register` takes it: encoder, decoder, content type, encoding.
SERIALIZER = (json.dumps, json.loads, "application/x-jobbridge-json", "utf-8")
