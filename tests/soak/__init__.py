"""Mixed work for minutes while everything that can break does; what came of it is counted. See `__main__`."""
