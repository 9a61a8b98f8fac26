"""The engine `temporal`: an optional extra. Empty on purpose: Temporal's sandbox imports it for each workflow."""
