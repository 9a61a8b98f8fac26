"""Each test runs inline, on a Celery worker and on a Temporal worker: see pytest.ini."""

from fastapi.testclient import TestClient
from jobs import confirm
from main import app
from models import Order, SessionLocal
from sqlalchemy import select

from jobbridge.testing import assert_enqueued, drain, refute_enqueued

client = TestClient(app)


def test_an_order_is_confirmed_by_its_job():
    taken = client.post("/orders", params={"customer": "Ada", "item": "tea"})
    drain(raise_on_failure=True)

    assert taken.status_code == 201
    assert_enqueued(confirm, args=[taken.json()["order"]], status="completed", count=1)
    assert client.get(f"/orders/{taken.json()['order']}").json()["state"] == "confirmed"


def test_an_order_that_is_refused_leaves_no_job():
    assert client.post("/orders", params={"customer": "Ada", "item": "nothing"}).status_code == 422

    refute_enqueued(confirm)
    with SessionLocal() as session:
        assert session.scalars(select(Order)).all() == []
