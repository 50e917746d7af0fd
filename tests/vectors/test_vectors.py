"""What real 0.3.4 peers exchanged is opened, decoded, and sealed to the same bytes."""

import json
from pathlib import Path
from typing import Any

import pytest

from glorytun.core.address import Endpoint, pack_address
from glorytun.core.batch import Batch
from glorytun.core.crypto import (
    AEGIS,
    CHACHA,
    KeyPair,
    has_aegis,
    make_aead,
    session_key,
    shared_secret,
)
from glorytun.core.wire import (
    CONTROL_BIT,
    OVERHEAD,
    TAG_SIZE,
    TIME_SIZE,
    ControlMessage,
    pull_control,
    pull_time,
    push_control,
    push_time,
    unwrap_time,
)

HERE = Path(__file__).parent
CAPTURES = {
    name: json.loads((HERE / f"{name}.json").read_text()) for name in ("aegis", "chacha", "mtu")
}
CASES = [
    pytest.param(capture, packet, id=f"{name}-{index}")
    for name, capture in CAPTURES.items()
    for index, packet in enumerate(capture["packets"])
]
CONTROL = [case for case in CASES if case.values[1]["kind"] == "control"]  # type: ignore[index]  # a ParameterSet's values are typed as objects
DATA = [case for case in CASES if case.values[1]["kind"] == "data"]  # type: ignore[index]  # likewise

UNDER_SESSION = [case for case in DATA if case.values[1]["key"] != case.values[0]["psk"]]  # type: ignore[index]  # likewise


def open_datagram(cipher: str, key: bytes, datagram: bytes) -> bytes:
    """The plaintext, or an assertion."""
    opened = bytearray(len(datagram))
    assert make_aead(cipher, key).open(Batch.of(datagram), opened) == [True]
    return bytes(opened[TIME_SIZE : len(datagram) - TAG_SIZE])


def seal_datagram(cipher: str, key: bytes, time: int, text: bytes) -> bytes:
    datagram = Batch.of(bytes(TIME_SIZE) + text + bytes(TAG_SIZE))
    push_time(datagram.buffer, 0, time)
    make_aead(cipher, key).seal(datagram)
    return bytes(datagram.buffer)


def cipher_of(capture: dict[str, Any], key: bytes) -> str:
    """0.3.4 seals with ChaCha20 under the secret key itself, whatever was agreed on."""
    is_session = key != bytes.fromhex(capture["psk"])
    return AEGIS if is_session and capture["cipher"] == "aegis256" else CHACHA


def fields_of(message: ControlMessage) -> dict[str, object]:
    """A message as the captures describe it."""
    return {
        "sent_time": message.sent_time,
        "state": message.state,
        "aes": int(message.aes),
        "pkey": message.pkey.hex(),
        "tx_bytes": message.tx_bytes,
        "tx_total": message.tx_total,
        "rx_bytes": message.rx_bytes,
        "rx_total": message.rx_total,
        "fw_bytes": message.fw_bytes,
        "fw_total": message.fw_total,
        "max_rate": message.max_rate,
        "beat": message.beat,
        "mtu": message.mtu,
        "loss": message.loss,
        "fixed_rate": int(message.fixed_rate),
        "loss_limit": message.loss_limit,
        "addr": message.sent_to.address.hex(),
        "port": message.sent_to.port,
    }


@pytest.mark.parametrize(("capture", "packet"), CONTROL)
def test_control_message(capture: dict[str, Any], packet: dict[str, Any]) -> None:
    """A control datagram has the recorded fields, and they make the same datagram."""
    psk, datagram = bytes.fromhex(capture["psk"]), bytes.fromhex(packet["datagram"])
    text = open_datagram(CHACHA, psk, datagram)
    message = pull_control(text)
    assert message is not None
    recorded = {key: value for key, value in packet["fields"].items() if key != "zero_tail"}
    assert fields_of(message) == recorded
    assert push_control(message, size=len(datagram)) == text
    assert seal_datagram(CHACHA, psk, pull_time(datagram), text) == datagram


@pytest.mark.parametrize(("capture", "packet"), CONTROL)
def test_control_time(capture: dict[str, Any], packet: dict[str, Any]) -> None:
    """The time field is the sender's clock, with bit 0 set, near the time of capture."""
    time = pull_time(bytes.fromhex(packet["datagram"]))
    assert time & CONTROL_BIT
    assert abs(unwrap_time(time, now=packet["at_us"]) - packet["at_us"]) < 1_000_000


@pytest.mark.parametrize(("capture", "packet"), DATA)
def test_data(capture: dict[str, Any], packet: dict[str, Any]) -> None:
    """A data datagram opens to the recorded packet, and that is sealed to the same datagram."""
    key, datagram = bytes.fromhex(packet["key"]), bytes.fromhex(packet["datagram"])
    cipher = cipher_of(capture, key)
    if cipher == AEGIS and not has_aegis():
        pytest.skip("pyaegis is not installed")
    text = open_datagram(cipher, key, datagram)
    assert text == bytes.fromhex(packet["packet"])
    time = pull_time(datagram)
    assert not time & CONTROL_BIT
    assert seal_datagram(cipher, key, time, text) == datagram


@pytest.mark.parametrize(("capture", "packet"), UNDER_SESSION)
def test_session_key(capture: dict[str, Any], packet: dict[str, Any]) -> None:
    """The recorded session key follows from either side's secret and the other's public key."""
    psk, key = bytes.fromhex(capture["psk"]), bytes.fromhex(packet["key"])
    sender, receiver = (bytes.fromhex(packet[f"{who}_public"]) for who in ("sender", "receiver"))
    for own, remote in ((sender, receiver), (receiver, sender)):
        pair = KeyPair(bytes.fromhex(capture["secrets"][own.hex()]))
        assert pair.public == own
        shared = shared_secret(pair, remote)
        assert shared is not None
        assert session_key(psk=psk, shared=shared, receiver=receiver, sender=sender) == key


def test_captures_cover_the_protocol() -> None:
    """The captures hold what the tests above are meant to be shown: they can't pass empty."""
    ciphers = {cipher_of(*_capture_and_key(case)) for case in DATA}
    assert ciphers == {AEGIS, CHACHA}
    assert len(CONTROL) > 900
    assert len(DATA) > 100
    sizes = {len(bytes.fromhex(case.values[1]["datagram"])) for case in CONTROL}  # type: ignore[index]  # as above
    assert min(sizes) == 147
    assert max(sizes) == 1450 + OVERHEAD


def _capture_and_key(case: Any) -> tuple[dict[str, Any], bytes]:
    capture, packet = case.values
    return capture, bytes.fromhex(packet["key"])


def test_addresses() -> None:
    """Captured addresses are IPv4 mapped into IPv6."""
    assert Endpoint(pack_address("10.9.1.2"), 5000) == Endpoint(
        bytes.fromhex("00000000000000000000ffff0a090102"), 5000
    )
