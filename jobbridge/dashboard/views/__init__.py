"""What is shown of jobs, and how: searches, columns, charts, words."""
