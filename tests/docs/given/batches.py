from shop import app, bill, report


@app.task(name="alarm")
def alarm(of: str) -> None: ...


orders = [1, 2, 3]


def orders_of(page: int) -> list[int]:
    return [page]
