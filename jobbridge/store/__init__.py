"""The tables of the job record: connections, SQL and row types, one module per table."""
