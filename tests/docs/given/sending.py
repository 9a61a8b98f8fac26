import logging
from functools import partial

import django
import sqlalchemy as sa
from django.conf import settings
from shop import app, bill
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

import jobbridge

url = sa.engine.make_url(app.settings.database_url).set(drivername="postgresql+psycopg")
settings.configure(
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql", "NAME": url.database, "HOST": url.host, "PORT": url.port,
            "USER": url.username, "PASSWORD": url.password,
        }
    }
)  # fmt: skip
django.setup()

from django.db import connection, transaction


class Base(DeclarativeBase): ...


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)


class Invoice:
    """Stands for a model of Django's."""

    id = 8

    def save(self) -> None:
        connection.cursor().execute("INSERT INTO orders (id) VALUES (%s)", [self.id])


engine = sa.create_engine(url)
Base.metadata.create_all(engine)
orders = [Order(id=number) for number in range(1, 4)]
order, invoice = Order(id=7), Invoice()
Session = partial(Session, expire_on_commit=False)
log = logging.getLogger("shop")
