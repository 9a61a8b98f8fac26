"""Encryption of what jobs carry: arguments, results, errors and progress, in rows, messages and Temporal's payloads.

In: keys, and a value with the place that it belongs to. Out: the value sealed, which only those who have the key open,
and only in that place. Decision 0028 says what is sealed, and what stays readable. Knows neither jobs nor messages,
but for `rows`, which says what of an event and of a row is sealed.
"""
