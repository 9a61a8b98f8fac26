from jobbridge import Celery

app = Celery("shop")


def render(tenant: str | None, account: str, month: str) -> None: ...
