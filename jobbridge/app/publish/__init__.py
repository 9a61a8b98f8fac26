"""From `delay()` to a row and a message: options, envelope, producer, singleton keys; cancelling and running again.

In comes what Celery sends (`amqp`), out goes a job that an engine has, or that the relay will deliver.
"""
