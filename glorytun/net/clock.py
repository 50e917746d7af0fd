"""The only reader of clocks and of the kernel's entropy."""

import os
from time import CLOCK_BOOTTIME, CLOCK_REALTIME, clock_gettime_ns, localtime, monotonic_ns

_STEP = 1_000_000
"""µs by which the system clock must be ahead before it is followed."""
_CHECK_INTERVAL = 1_000_000
"""µs between two looks at the system clock."""


def monotonic_us() -> int:
    """Microseconds that stand still during suspend, for measuring how long something took."""
    return monotonic_ns() // 1000


def entropy(size: int) -> bytes:
    """`size` bytes from the kernel's random generator."""
    return os.urandom(size)


class Clock:
    """Microseconds since the epoch that never decrease, as nonces are made of them.

    It starts at the system clock and advances with CLOCK_BOOTTIME, so that suspend counts
    (clock_gettime(2)). Both clocks are slewed alike; only a *step* of the system clock sets them
    apart. A step forward of more than a second is followed, a step backward never is (PROTOCOL 7:
    no nonce is ever used twice).

    For tests, the environment variable ``GLORYTUN_TEST_CLOCK_OFFSET`` (seconds, may be fractional
    or negative) is added, as if the system clock were off by as much.
    """

    def __init__(self) -> None:
        self._test_offset = round(float(os.environ.get("GLORYTUN_TEST_CLOCK_OFFSET") or 0) * 1e6)
        self._offset = self._system_offset()
        self._check_at = 0

    def now(self) -> int:
        """Microseconds since the epoch; looks for a step of the system clock once a second."""
        boot = clock_gettime_ns(CLOCK_BOOTTIME) // 1000
        if boot >= self._check_at:
            self._check_at = boot + _CHECK_INTERVAL
            self.check_step()
        return boot + self._offset

    def today(self) -> tuple[int, int, int]:
        """Year, month and day, local."""
        return localtime(self.now() / 1e6)[:3]

    def check_step(self) -> int:
        """Follow the system clock if it was stepped forward.

        Returns how far the system clock then is from this one, µs: negative when it is behind,
        which stays so until it catches up or the process is restarted.
        """
        ahead = self._system_offset() - self._offset
        if ahead <= _STEP:
            return ahead
        self._offset += ahead
        return 0

    def _system_offset(self) -> int:
        """The system clock minus CLOCK_BOOTTIME, µs."""
        boot = clock_gettime_ns(CLOCK_BOOTTIME)
        return (clock_gettime_ns(CLOCK_REALTIME) - boot) // 1000 + self._test_offset
