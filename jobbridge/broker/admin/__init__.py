"""Looking at queues and messages from outside, on a connection of the caller: depths, lookup, dead letters."""
