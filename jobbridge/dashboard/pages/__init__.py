"""The pages, one module each. Each reads a bounded number of rows (see `store.monitor` and `store.counts`)."""
