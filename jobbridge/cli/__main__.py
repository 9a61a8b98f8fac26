"""`python -m jobbridge.cli`."""

from jobbridge.cli import main

main()
