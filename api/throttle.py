"""Wrong API keys from one address come slower and slower answers: so many at once, then one a second."""

import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from threading import Lock


class Throttle:
    """Counts wrong keys by client address, in this process's memory.

    While an address has to wait, each of its keys is refused unread: right and wrong ones look alike. Right
    keys never count. Past ``most_addresses`` the one that has been silent longest is forgotten.
    """

    def __init__(
        self,
        burst: int = 20,
        per_second: float = 1.0,
        most_addresses: int = 10_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._interval = 1 / per_second
        self._burst_seconds = burst / per_second
        self._most, self._clock = most_addresses, clock
        # When the allowance of an address will be whole again (the generic cell rate algorithm).
        self._whole_at: OrderedDict[str, float] = OrderedDict()
        self._lock = Lock()

    def wait_seconds(self, address: str) -> int:
        """Whole seconds until the address may try a key; 0: now."""
        with self._lock:
            ahead = self._whole_at.get(_network(address), 0.0) - self._clock()
        # The next failure must fit: it takes one interval of the burst.
        return max(0, math.ceil(ahead + self._interval - self._burst_seconds))

    def failed(self, address: str) -> None:
        """Count a wrong key."""
        network = _network(address)
        with self._lock:
            known = self._whole_at.pop(network, 0.0)
            self._whole_at[network] = max(known, self._clock()) + self._interval
            if len(self._whole_at) > self._most:
                self._whole_at.popitem(last=False)


def _network(address: str) -> str:
    """One client may have all the addresses of an IPv6 /64: they count as one."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((int(parsed), 64), strict=False))
    return str(parsed)
