"""The base classes of the shop's tasks."""

from celery import Task

from shop.ledger import note


class Noted(Task):
    """Notes what becomes of each of its tasks."""

    abstract = True

    def before_start(self, task_id, args, kwargs):
        note(task_id, "before_start")

    def on_success(self, retval, task_id, args, kwargs):
        note(task_id, f"on_success {retval}")

    def on_failure(self, exc, task_id, args, kwargs, einfo):
        note(task_id, f"on_failure {exc}")

    def on_retry(self, exc, task_id, args, kwargs, einfo):
        note(task_id, "on_retry")

    def after_return(self, status, retval, task_id, args, kwargs, einfo):
        note(task_id, f"after_return {status}")


class Connected(Noted):
    """Opens its connection once in each process."""

    abstract = True
    _connection = None

    @property
    def connection(self):
        if self._connection is None:
            self._connection = {"apple": 3, "pear": 5}
        return self._connection
