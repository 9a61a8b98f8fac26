"""The project beside this file has tests of its own, which run in it: see test_settings.py."""

collect_ignore = ["project"]
