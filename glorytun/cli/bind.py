"""`glorytun bind`: run a tunnel."""

from typing import Any

from glorytun.cli.values import looks_like_address, parse_file
from glorytun.cli.words import Flag, Keyword, Options, Positional, Value
from glorytun.config import (
    BindOptions,
    looks_like_number,
    parse_address,
    parse_device,
    parse_host,
    parse_port,
)
from glorytun.core.settings import CipherChoice

OPTIONS: Options = (
    Positional(
        value=Value(key="bind_address", name="ADDR", parse=parse_address, fits=looks_like_address),
        help="the local address to listen on; 0.0.0.0 without, :: is IPv4 and IPv6.",
    ),
    Positional(
        value=Value(key="bind_port", name="PORT", parse=parse_port, fits=looks_like_number),
        help="the local UDP port; 5000 without.",
    ),
    Keyword(
        word="to",
        value=Value(key="peer_host", name="HOST", parse=parse_host),
        second=Value(key="peer_port", name="PORT", parse=parse_port, fits=looks_like_number),
        help="be the client of this server, a name or an address, at this UDP port (5000).",
    ),
    Keyword(
        word="dev",
        value=Value(key="device", name="NAME", parse=parse_device),
        help="the name of the TUN device; the kernel chooses one without.",
    ),
    Keyword(
        word="keyfile",
        value=Value(key="keyfile", name="FILE", parse=parse_file),
        needed="`glorytun keygen` makes the key that goes in there",
        help="the file with the secret key, the same on both sides; - is standard input.",
    ),
    Flag(
        word="aegis",
        key="cipher",
        value=CipherChoice.AEGIS,
        help="encrypt data with AEGIS-256 if the peer can, else with ChaCha20-Poly1305.",
    ),
    Flag(
        word="aes",
        key="cipher",
        value=CipherChoice.AES,
        help="encrypt data with AES-256-GCM if the peer can, else with ChaCha20-Poly1305.",
    ),
    Flag(
        word="chacha",
        key="cipher",
        value=CipherChoice.CHACHA,
        help="encrypt data with ChaCha20-Poly1305 only.",
    ),
    Flag(word="persist", key="persist", help="leave the TUN device in place at exit."),
)


def run(found: dict[str, Any]) -> int:
    """Run the tunnel until it is told to stop."""
    from glorytun.daemon import run as run_daemon  # loads the crypto libraries

    return run_daemon(BindOptions(**found))
