"""The line about a tunnel in `systemctl status`."""

from glorytun.core.settings import SECOND, PathState
from glorytun.core.status import Condition, PathStatus

_UNITS = ((10**9, "Gbit/s"), (10**6, "Mbit/s"), (10**3, "kbit/s"))
_IDLE = 1000
"""bit/s that control messages and the like make."""


class StatusLine:
    """Knows what was carried since it was last told."""

    def __init__(self, *, client: bool) -> None:
        # What a client receives comes down from the Internet.
        self._words = ("down", "up") if client else ("in", "out")
        self._idle = "no path is up" if client else "waiting for a client"
        self._sent = self._received = 0
        self._measured_at: int | None = None
        self._rates = (0.0, 0.0)

    def measure(self, *, sent: int, received: int, now: int) -> None:
        """Take the bytes carried since the start, and the time, µs."""
        if self._measured_at is not None and now > self._measured_at:
            bits = 8 * SECOND / (now - self._measured_at)
            self._rates = ((received - self._received) * bits, (sent - self._sent) * bits)
        self._sent, self._received, self._measured_at = sent, received, now

    def text(
        self, paths: list[PathStatus], *, missing: int = 0, trouble: str = "", refusal: str = ""
    ) -> str:
        """The line; `missing` are paths that ought to be there and have no link now."""
        running = sum(path.condition is Condition.RUNNING for path in paths)
        # What is set down is as it should be.
        wanted = missing + sum(path.settings.state != PathState.DOWN for path in paths)
        parts = [f"{running} of {wanted} paths running, {self._flow()}" if wanted else self._idle]
        parts += [trouble] if trouble else []
        parts += [f"reload refused: {refusal}"] if refusal else []
        return "; ".join(parts)

    def _flow(self) -> str:
        rates = zip(self._rates, self._words, strict=True)
        return ", ".join(f"{_rate(rate)} {word}" for rate, word in rates if rate >= _IDLE) or "idle"


def _rate(bits: float) -> str:
    """Two digits at the least: 54 Mbit/s, 3.2 Mbit/s."""
    size, unit = next((size, unit) for size, unit in _UNITS if bits >= size)
    number = bits / size
    return f"{number:.0f} {unit}" if number >= 9.95 else f"{number:.1f} {unit}"
