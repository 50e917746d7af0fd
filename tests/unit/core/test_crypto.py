"""AEADs, and key derivation."""

import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from random import Random
from time import perf_counter

import nacl.bindings
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glorytun.core import crypto
from glorytun.core.batch import Batch
from glorytun.core.crypto import (
    AEGIS,
    AES_GCM,
    CHACHA,
    Aead,
    KeyPair,
    available_ciphers,
    capabilities,
    choose_cipher,
    confirmation,
    has_aegis,
    make_aead,
    session_key,
    shared_secret,
)
from glorytun.core.settings import CipherChoice
from glorytun.core.wire import OVERHEAD, TAG_SIZE, TIME_SIZE, Capability
from glorytun.net.features import aes_hardware

KEY = bytes(range(32))
TIME = bytes.fromhex("0102030405ab")
NEEDS_AEGIS = pytest.mark.skipif(not has_aegis(), reason="pyaegis is not installed")
CIPHERS = [pytest.param(AEGIS, marks=NEEDS_AEGIS), AES_GCM, CHACHA]
NEEDS_AES = (
    pytest.mark.skipif(not aes_hardware(), reason="no AES in this processor"),
    pytest.mark.skipif(
        not hasattr(nacl.bindings, "crypto_aead_aes256gcm_encrypt"),
        reason="PyNaCl has AES-256-GCM since 1.6",
    ),
)
COMPILED = [pytest.param(AEGIS, marks=NEEDS_AEGIS), CHACHA, pytest.param(AES_GCM, marks=NEEDS_AES)]
SIZES = st.integers(0, 1500)


def public(name: str) -> Aead:
    """What is used where the compiled entry points have moved."""
    makers: dict[str, Callable[[bytes], tuple[object, object]]] = {
        AEGIS: crypto._public_aegis,
        CHACHA: crypto._public_chacha,
        AES_GCM: crypto._public_aes,
    }
    seal, open_ = makers[name](KEY)
    return crypto._Wrapped(name, seal, open_)  # type: ignore[arg-type]  # both are functions


def datagrams(*texts: bytes, gap: int = 0, offset: int = 0) -> Batch:
    """A batch to seal, each row with a time of its own; all texts but the last are as long."""
    size = len(texts[0]) + OVERHEAD
    stride = size + gap
    buffer = bytearray(b"\xee" * (offset + stride * len(texts)))
    for index, text in enumerate(texts):
        start = offset + index * stride
        row = bytes([index]) + TIME[1:] + text + bytes(TAG_SIZE)
        buffer[start : start + len(row)] = row
    return Batch(buffer, offset, stride, len(texts), size, len(texts[-1]) + OVERHEAD)


def opened(aead: Aead, batch: Batch) -> list[bytes | None]:
    """The texts of the rows, None for what isn't authentic."""
    into = bytearray(len(batch.buffer))
    good = aead.open(batch, into)
    plain = Batch(into, batch.offset, batch.stride, batch.count, batch.size, batch.last)
    return [
        bytes(row[TIME_SIZE:-TAG_SIZE]) if is_good else None
        for row, is_good in zip(plain.rows(), good, strict=True)
    ]


def modules_of(name: str) -> tuple[str, ...]:
    return {
        CHACHA: ("nacl._sodium", "crypto_aead_chacha20poly1305_"),
        AEGIS: ("pyaegis._aegis_ffi", "aegis256_"),
        AES_GCM: ("nacl._sodium", "crypto_aead_aes256gcm_"),
    }[name]


@pytest.mark.parametrize("name", COMPILED)
def test_compiled_entry_points_are_there(name: str) -> None:
    """The entry points that aren't public haven't moved: nobody pays for wrappers unknowingly."""
    module, prefix = modules_of(name)
    library = import_module(module)
    assert {"encrypt", "decrypt"} <= {
        verb for verb in ("encrypt", "decrypt") if hasattr(library.lib, prefix + verb)
    }
    assert type(make_aead(name, KEY)) is crypto._Compiled


@pytest.mark.parametrize("name", COMPILED)
@pytest.mark.parametrize("missing", ["module", "function"])
def test_public_interface_is_the_fallback(
    name: str, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the compiled entry points are missing, the public ones are used."""
    module, _ = modules_of(name)
    if name == AEGIS:
        loaded = None if missing == "module" else (object(), object())
        monkeypatch.setattr(crypto, "_load_aegis", lambda: loaded)
    elif missing == "module":
        monkeypatch.setitem(sys.modules, module, None)
    else:
        monkeypatch.setattr(import_module(module), "lib", object())
    aead = make_aead(name, KEY)
    assert type(aead) is crypto._Wrapped
    batch = datagrams(b"text")
    aead.seal(batch)
    assert opened(aead, batch) == [b"text"]


@NEEDS_AEGIS
def test_aegis_needs_no_writable_code() -> None:
    """AEGIS-256 loads where memory can't be writable and executable, as in a sandboxed service."""
    script = (
        "import ctypes; libc = ctypes.CDLL(None);"
        "PR_SET_MDWE, REFUSE_EXEC_GAIN = 65, 1;"  # prctl(2), Linux 6.3
        "print(libc.prctl(PR_SET_MDWE, REFUSE_EXEC_GAIN, 0, 0, 0));"
        "from glorytun.core import crypto; print(crypto.has_aegis());"
        "print(type(crypto.make_aead('aegis256', bytes(32))).__name__)"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    lines = result.stdout.split()
    if lines and lines[0] != "0":
        pytest.skip("the kernel has no PR_SET_MDWE")
    assert lines == ["0", "True", "_Compiled"], result.stderr


@pytest.mark.parametrize("name", COMPILED)
def test_compiled_and_public_agree_for_every_size(name: str) -> None:
    """For every size of packet there is, both ways give the same bytes and open them."""
    compiled, fallback = make_aead(name, KEY), public(name)
    random = Random(1)
    for size in range(1501):
        text = random.randbytes(size)
        ours, theirs = datagrams(text), datagrams(text)
        compiled.seal(ours)
        fallback.seal(theirs)
        assert ours.buffer == theirs.buffer
        assert opened(compiled, ours) == opened(fallback, ours) == [text]


@pytest.mark.parametrize("name", COMPILED)
def test_compiled_and_public_agree_on_forgeries(name: str) -> None:
    """Neither opens a datagram that was altered."""
    batch = datagrams(b"some text", b"other")
    make_aead(name, KEY).seal(batch)
    batch.buffer[batch.stride + TIME_SIZE] ^= 1
    assert opened(make_aead(name, KEY), batch) == [b"some text", None]
    assert opened(public(name), batch) == [b"some text", None]


@pytest.mark.parametrize("name", CIPHERS)
def test_sealed_as_the_protocol_says(name: str) -> None:
    """Time, ciphertext, tag: the time is in the clear, and nothing else is."""
    batch = datagrams(b"x" * 100)
    make_aead(name, KEY).seal(batch)
    assert batch.buffer[:TIME_SIZE] == bytes([0]) + TIME[1:]
    assert b"xxx" not in batch.buffer
    assert batch.buffer[-TAG_SIZE:] != bytes(TAG_SIZE)


@pytest.mark.parametrize("name", CIPHERS)
@settings(max_examples=50)
@given(size=SIZES, last=SIZES, count=st.integers(1, 6), gap=st.integers(0, 9), data=st.data())
def test_batch_is_sealed_and_opened(
    name: str, size: int, last: int, count: int, gap: int, data: st.DataObject
) -> None:
    """Rows of any batch, the last one shorter, come out as they went in, and nothing else moves."""
    texts = [data.draw(st.binary(min_size=size, max_size=size)) for _ in range(count - 1)]
    texts.append(data.draw(st.binary(min_size=min(last, size), max_size=min(last, size))))
    if count == 1:
        size = len(texts[0])
    batch = datagrams(*texts, gap=gap, offset=gap)
    aead = make_aead(name, KEY)
    outside = _outside(batch)
    aead.seal(batch)
    assert _outside(batch) == outside
    sealed = bytes(batch.buffer)
    assert opened(aead, batch) == texts
    assert batch.buffer == sealed, "a row that was opened can be tried with another key"


def _outside(batch: Batch) -> bytes:
    """The bytes of the buffer that are in no row."""
    buffer = bytearray(batch.buffer)
    inside = Batch(buffer, batch.offset, batch.stride, batch.count, batch.size, batch.last)
    for row in inside.rows():
        row[:] = bytes(len(row))
    return bytes(buffer)


@pytest.mark.parametrize("name", CIPHERS)
@pytest.mark.parametrize("size", [0, 1, 40])
def test_any_flipped_bit_is_refused(name: str, size: int) -> None:
    """A single bit that is altered, in the time, the text or the tag, makes a datagram refused."""
    aead = make_aead(name, KEY)
    batch = datagrams(bytes(size))
    aead.seal(batch)
    assert opened(aead, batch) == [bytes(size)]
    for bit in range(8 * batch.size):
        batch.buffer[bit // 8] ^= 1 << bit % 8
        altered = bytes(batch.buffer)
        assert opened(aead, batch) == [None]
        assert batch.buffer == altered
        batch.buffer[bit // 8] ^= 1 << bit % 8


@pytest.mark.parametrize("name", CIPHERS)
def test_another_key_opens_nothing(name: str) -> None:
    """What is sealed under one key is not opened under another."""
    batch = datagrams(b"text")
    make_aead(name, KEY).seal(batch)
    assert opened(make_aead(name, KEY[::-1]), batch) == [None]


@pytest.mark.parametrize("name", CIPHERS)
def test_one_bad_row_does_no_harm(name: str) -> None:
    """The rows beside one that was altered are opened."""
    aead = make_aead(name, KEY)
    for bad in range(4):
        texts = [bytes([index]) * 50 for index in range(3)] + [b"short"]
        batch = datagrams(*texts, gap=3)
        aead.seal(batch)
        batch.buffer[bad * batch.stride + TIME_SIZE] ^= 0x80
        expected = [None if index == bad else text for index, text in enumerate(texts)]
        assert opened(aead, batch) == expected


def test_chacha_is_the_original_construction() -> None:
    """PROTOCOL 1: 8 bytes of nonce, not the 12 of RFC 8439."""
    batch = datagrams(b"text")
    make_aead(CHACHA, KEY).seal(batch)
    time = bytes(batch.buffer[:TIME_SIZE])
    nonce = time + bytes(2)
    expected = nacl.bindings.crypto_aead_chacha20poly1305_encrypt(b"text", time, nonce, KEY)
    assert batch.buffer[TIME_SIZE:] == expected


@NEEDS_AEGIS
def test_libsodium_is_initialised() -> None:
    """Its ChaCha20 is within a factor of 20 of AEGIS: uninitialised it is slower by 100."""

    def cost(name: str) -> float:
        aead, batch = make_aead(name, KEY), datagrams(*[bytes(1400)] * 20)
        times = []
        for _ in range(20):
            start = perf_counter()
            aead.seal(batch)
            times.append(perf_counter() - start)
        return min(times)

    assert cost(CHACHA) < 20 * cost(AEGIS)


@pytest.mark.parametrize(
    ("installed", "expected"), [(True, [AEGIS, AES_GCM, CHACHA]), (False, [AES_GCM, CHACHA])]
)
def test_available_ciphers(
    installed: bool, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """AEGIS is there when its library is installed."""
    monkeypatch.setattr(crypto, "has_aegis", lambda: installed)
    assert available_ciphers() == expected


def test_unknown_cipher() -> None:
    """A name that is no cipher's is our own mistake."""
    with pytest.raises(KeyError):
        make_aead("rot13", KEY)


ALL = Capability.AEGIS | Capability.AES_GCM | Capability.TIMESTAMPS


@pytest.mark.parametrize(
    ("choice", "hardware", "installed", "expected"),
    [
        (CipherChoice.AUTO, True, True, ALL),
        (CipherChoice.AUTO, True, False, ALL & ~Capability.AEGIS),
        (CipherChoice.AUTO, False, True, Capability.TIMESTAMPS),
        (CipherChoice.AEGIS, True, True, ALL & ~Capability.AES_GCM),
        (CipherChoice.AEGIS, True, False, Capability.TIMESTAMPS),
        (CipherChoice.AES, True, True, ALL & ~Capability.AEGIS),
        (CipherChoice.AES, False, True, Capability.TIMESTAMPS),
        (CipherChoice.CHACHA, True, True, Capability.TIMESTAMPS),
    ],
)
def test_capabilities(
    choice: CipherChoice,
    hardware: bool,
    installed: bool,
    expected: Capability,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """We announce what is chosen, installed, and done in hardware."""
    monkeypatch.setattr(crypto, "has_aegis", lambda: installed)
    assert capabilities(choice, aes_hardware=hardware) == expected


@given(st.integers(0, 7), st.integers(0, 7))
def test_both_peers_choose_one_cipher(ours: int, theirs: int) -> None:
    """Whatever two peers can do, both choose the same cipher, the best that both have."""
    mine, other = Capability(ours), Capability(theirs)
    chosen = choose_cipher(mine, other)
    assert chosen == choose_cipher(other, mine)
    both = mine & other
    expected = (
        AEGIS if both & Capability.AEGIS else AES_GCM if both & Capability.AES_GCM else CHACHA
    )
    assert chosen == expected


def test_x25519() -> None:
    """RFC 7748, 6.1: Bob's public key, and the secret that he shares with Alice."""
    bob = KeyPair(bytes.fromhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"))
    alice = bytes.fromhex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a")
    assert bob.public.hex() == "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"
    secret = shared_secret(bob, alice)
    assert secret is not None
    assert secret.hex() == "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"


P = 2**255 - 19
LOW_ORDER = [
    0,
    1,
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
    P - 1,
    P,
    P + 1,
]
"""The points of small order, https://cr.yp.to/ecdh.html#validate."""


@pytest.mark.parametrize("point", LOW_ORDER)
def test_low_order_key_leaves_no_secret(point: int) -> None:
    """A public key of small order, which would make any secret zero, is refused."""
    remote = point.to_bytes(32, "little")
    assert shared_secret(KeyPair(KEY), remote) is None


def test_session_keys_differ_by_direction() -> None:
    """The key for data one way isn't that for the other, and depends on every part."""
    parts = {"psk": KEY, "shared": b"s" * 32, "receiver": b"r" * 32, "sender": b"t" * 32}
    key = session_key(**parts)
    assert len(key) == 32
    assert key != session_key(**parts | {"receiver": b"t" * 32, "sender": b"r" * 32})
    for name in parts:
        assert key != session_key(**parts | {name: b"\0" * 32})


def test_confirmation() -> None:
    """Eight bytes that depend on the key."""
    assert len(confirmation(KEY)) == 8
    assert confirmation(KEY) != confirmation(KEY[::-1])
