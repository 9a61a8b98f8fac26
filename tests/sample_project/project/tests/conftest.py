import time

import pytest
from shop.app import app


def wait_for(condition, timeout=60):
    """Call it until it is true, and give its value."""
    deadline = time.monotonic() + timeout
    while True:
        if value := condition():
            return value
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.05)


@pytest.fixture(scope="session", autouse=True)
def shop():
    app.loader.import_default_modules()  # receivers of signals are of them
    yield app
    app.close()
