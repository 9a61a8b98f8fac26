"""Receivers of Celery's signals."""

from celery import signals

from shop.ledger import note

WATCHED = "shop.orders.charge"


@signals.before_task_publish.connect(sender=WATCHED)
def before(headers=None, **kwargs):
    note("signals", f"before_task_publish {headers['id']}")


@signals.after_task_publish.connect(sender=WATCHED)
def after(headers=None, **kwargs):
    note("signals", f"after_task_publish {headers['id']}")


@signals.task_prerun.connect
def prerun(task_id=None, task=None, **kwargs):
    if task.name == WATCHED:
        note("signals", f"task_prerun {task_id}")


@signals.task_postrun.connect
def postrun(task_id=None, task=None, state=None, **kwargs):
    if task.name == WATCHED:
        note("signals", f"task_postrun {state} {task_id}")


@signals.task_retry.connect
def retried(request=None, **kwargs):
    note("signals", f"task_retry {request.id}")


@signals.task_failure.connect
def failed(task_id=None, **kwargs):
    note("signals", f"task_failure {task_id}")


@signals.task_success.connect
def succeeded(sender=None, **kwargs):
    if sender.name == WATCHED:
        note("signals", f"task_success {sender.request.id}")


@signals.task_revoked.connect
def revoked(request=None, **kwargs):
    note("signals", f"task_revoked {request.id}")


@signals.worker_process_init.connect
def process_init(**kwargs):
    note("signals", "worker_process_init")


@signals.worker_ready.connect
def ready(**kwargs):
    note("signals", "worker_ready")
