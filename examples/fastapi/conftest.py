import os

import pytest

os.environ.setdefault("DATABASE_URL", "postgresql://localhost/no-test-uses-it")

from jobs import app  # models.py reads it
from models import Base, SessionLocal
from sqlalchemy import create_engine

from jobbridge.sqlalchemy import database_url


@pytest.fixture(autouse=True)
def orders(jobbridge):
    """Keep the orders where the test has its jobs."""
    engine = create_engine(database_url(app.settings))
    Base.metadata.create_all(engine)
    SessionLocal.configure(bind=engine)
    yield
    engine.dispose()
