"""`glorytun bench`: measure how fast this machine encrypts."""

from typing import Any

from glorytun.cli.common import JSON, print_json
from glorytun.cli.words import Flag, Options
from glorytun.core.batch import Batch
from glorytun.core.crypto import available_ciphers, make_aead
from glorytun.errors import GlorytunError
from glorytun.net.clock import entropy, monotonic_us
from glorytun.net.features import aegis_advice

OPTIONS: Options = (
    Flag(word="aegis", key="cipher", value="aegis256", help="measure AEGIS-256 alone."),
    Flag(word="aes", key="cipher", value="aes256gcm", help="measure AES-256-GCM alone."),
    Flag(
        word="chacha",
        key="cipher",
        value="chacha20poly1305",
        help="measure ChaCha20-Poly1305 alone.",
    ),
    JSON,
)

SIZES = (20, 150, 450, 850, 1250, 1450)
"""Bytes of an inner packet."""

_TIME = 100_000
"""µs that each size takes, sealing and opening together."""
_ROWS = 40
"""Packets at a time, as many as the largest super-packet has."""
_HEAD = 6
_TAG = 16


def run(found: dict[str, Any]) -> int:
    """Print the speed for each cipher and packet size."""
    ciphers = _chosen(found.get("cipher"))
    if "json" in found:
        print_json({"ciphers": [_document(cipher) for cipher in ciphers]})
        return 0
    print(f"{'cipher':<17} {'bytes':>6} {'seal MB/s':>10} {'open MB/s':>10}")
    for cipher in ciphers:
        for size in SIZES:
            seal, open_ = measure(cipher, size)
            print(f"{cipher:<17} {size:>6} {seal / 1e6:>10.0f} {open_ / 1e6:>10.0f}", flush=True)
    return 0


def measure(cipher: str, size: int, *, duration: int = _TIME) -> tuple[float, float]:
    """Bytes/s of packets of `size` bytes sealed, and opened, within `duration` µs."""
    aead = make_aead(cipher, entropy(32))
    row = _HEAD + size + _TAG
    batch = Batch(bytearray(_ROWS * row), 0, row, _ROWS, row, row)
    opened_into = bytearray(_ROWS * row)
    sealed = opened = rounds = 0
    while sealed + opened < duration:
        start = monotonic_us()
        aead.seal(batch)
        middle = monotonic_us()
        aead.open(batch, opened_into)
        opened += monotonic_us() - middle
        sealed += middle - start
        rounds += 1
    total = rounds * _ROWS * size * 1_000_000
    return total / max(sealed, 1), total / max(opened, 1)


def _document(cipher: str) -> dict[str, object]:
    speeds = []
    for size in SIZES:
        seal, open_ = measure(cipher, size)
        speeds.append({"size": size, "seal": round(seal), "open": round(open_)})
    return {"cipher": cipher, "speeds": speeds}


def _chosen(cipher: str | None) -> list[str]:
    available = available_ciphers()
    if cipher is None:
        return available
    if cipher not in available:
        hint = aegis_advice() if cipher == "aegis256" else ""
        raise GlorytunError(f"{cipher} is not available on this machine", hint=hint)
    return [cipher]
