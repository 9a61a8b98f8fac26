"""The examples have tests of their own, which run in their folders: see test_examples.py."""
