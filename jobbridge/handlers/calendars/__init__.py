"""Keep the notifications of calendars alive: Graph subscriptions, and Google's watch channels."""
