"""How often one address may try to sign in."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from datetime import timedelta
from ipaddress import IPv6Address, ip_address, ip_network


def address_of(client: str) -> str:
    """Give what attempts are counted by: of IPv6 the network, of which one person has all addresses."""
    try:
        address = ip_address(client)
    except ValueError:
        return client
    if not isinstance(address, IPv6Address):
        return client
    return str(address.ipv4_mapped or ip_network((address, 64), strict=False))


class AttemptLimit:
    """Counts attempts by address, in this process.

    Args:
        attempts: So many within the time.
        within: The time.
        addresses: How many are remembered; the one that was quiet for longest is forgotten first.
    """

    def __init__(
        self, *, attempts: int = 10, within: timedelta = timedelta(minutes=1), addresses: int = 10_000
    ) -> None:
        self._attempts = attempts
        self._within = within.total_seconds()
        self._addresses = addresses
        self._by_address: OrderedDict[str, deque[float]] = OrderedDict()
        self._lock = threading.Lock()

    def allows(self, address: str, *, now: float) -> bool:
        """Count an attempt; false: it is one too many.

        Args:
            now: Seconds, of any clock that goes on.
        """
        with self._lock:
            times = self._by_address.setdefault(address, deque())
            self._by_address.move_to_end(address)
            while times and times[0] <= now - self._within:
                times.popleft()
            while len(self._by_address) > self._addresses:
                self._by_address.popitem(last=False)
            if len(times) >= self._attempts:
                return False
            times.append(now)
            return True
