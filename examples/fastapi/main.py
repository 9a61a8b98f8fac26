"""An API that takes orders; each is confirmed by a job that is there exactly if the order is."""

from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import FastAPI, HTTPException
from jobs import app as jobs
from jobs import confirm
from models import Base, Order, SessionLocal, engine
from sqlalchemy.orm import Session

from jobbridge.fastapi import job_session


@asynccontextmanager
async def lifespan(app: FastAPI):
    Base.metadata.create_all(engine)
    yield


app = FastAPI(lifespan=lifespan)
Transaction = Annotated[Session, job_session(SessionLocal, app=jobs)]


@app.post("/orders", status_code=201)
def take(customer: str, item: str, session: Transaction) -> dict[str, str | int]:
    order = Order(customer=customer, item=item)
    session.add(order)
    session.flush()
    job = confirm.delay(order.id)
    if item == "nothing":
        raise HTTPException(422, "Nothing was ordered.")  # neither the order nor its job is there
    return {"order": order.id, "job": job.id}


@app.get("/orders/{order_id}")
def show(order_id: int, session: Transaction) -> dict[str, str]:
    order = session.get(Order, order_id)
    if order is None:
        raise HTTPException(404)
    return {"customer": order.customer, "item": order.item, "state": order.state}
