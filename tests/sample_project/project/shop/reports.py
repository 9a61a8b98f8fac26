"""Reports: periodic tasks, and parts of larger ones."""

from celery import chord, shared_task

from shop.ledger import note


@shared_task
def tick(which):
    note(f"tick-{which}")


@shared_task
def limited(number):
    return number


@shared_task
def line(number):
    return [number, number * number]


@shared_task
def report(lines):
    return {str(number): square for number, square in lines}


@shared_task(bind=True)
def whole_report(self, size):
    return self.replace(chord([line.s(number) for number in range(size)], report.s()))
