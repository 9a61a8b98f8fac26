"""The one way to Postgres: whatever opens a connection, waits on one, or reads an error of one, is here.

It knows neither jobs nor messages. A URL and a purpose go in; a connection comes out that is named, in autocommit, in
UTC and UTF-8, at READ COMMITTED, free of other people's time-outs, and that notices within 30 s when nobody answers.
"""
