from jobbridge import Celery

app = Celery("shop")


@app.task
def invoice() -> None: ...
