"""Changes of jobs as Server-Sent Events: one reader of the log for all who watch."""
