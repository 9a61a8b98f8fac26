"""The pages, one module each. Each reads a bounded number of rows (see `jobbridge.store.monitor` and `counting`)."""
