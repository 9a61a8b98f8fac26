"""`python -m jobbridge.temporal.worker`: as `jobbridge temporal-worker`."""

import sys

from jobbridge.temporal.worker.worker import main

if __name__ == "__main__":
    sys.exit(main(program="python -m jobbridge.temporal.worker"))
