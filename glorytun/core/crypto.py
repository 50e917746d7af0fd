"""AEADs behind one batch interface, and key derivation: the only importer of crypto libraries.

The compiled entry points of PyNaCl and pyaegis are called in place, with pointers: their public
wrappers allocate and copy for each datagram (1.2 to 5 µs a call instead of 0.5). The entry points
are not public; where one is missing the public wrapper is used, and a test says so.
"""

import hashlib
from collections.abc import Callable
from functools import cache
from importlib.machinery import PathFinder
from importlib.util import find_spec, module_from_spec
from itertools import repeat
from typing import Any, Protocol

import nacl.bindings
import nacl.exceptions
import numpy as np
import numpy.typing as npt

from glorytun.core.batch import Batch, Buffer
from glorytun.core.settings import CipherChoice
from glorytun.core.wire import OVERHEAD, TAG_SIZE, TIME_SIZE, Capability

CHACHA = "chacha20poly1305"
AEGIS = "aegis256"
AES_GCM = "aes256gcm"

_NONCE_SIZE = {CHACHA: 8, AEGIS: 32, AES_GCM: 12}
"""Of the time field and zeros up to it (PROTOCOL 1)."""
_NONCE_MAX = 32
CONFIRM_SIZE = 8

# What this implementation chose.

_ROWS = 1024
"""There is room for the nonces of so many rows from the start."""
_PLACES_KEPT = 64
"""Of batches in one buffer, whose pointers are kept."""


class Aead(Protocol):
    """Seals and opens rows ``time ‖ text ‖ tag``; the time is nonce and associated data."""

    def seal(self, datagrams: Batch) -> None:
        """Encrypt each row in place and fill in its tag; the times are there already."""

    def open(self, datagrams: Batch, into: bytearray) -> list[bool]:
        """Decrypt each row to its own place in `into`, after its time; says which are authentic.

        `into` is as long as the batch's buffer, and another one: the row stays as it is, so that
        it can be tried with another key. What lies in `into` for a row that isn't authentic has
        no meaning.
        """


def has_aegis() -> bool:
    """Whether pyaegis is installed, and loads; it is optional because Debian lacks it."""
    if find_spec("pyaegis") is None:
        return False
    if _load_aegis() is not None:
        return True
    try:
        import pyaegis  # noqa: F401  # only whether it can be
    except Exception:  # Whatever it is, it must not come up later, in the middle of a key exchange.
        return False
    return True


@cache
def _load_aegis() -> tuple[Any, Any] | None:
    """The compiled part of pyaegis, initialised: its ffi and lib; None when there is none.

    Without the package around it, whose callbacks need memory that is writable and executable:
    a service may not have that (systemd.exec(5), MemoryDenyWriteExecute=).
    """
    package = find_spec("pyaegis")
    places = package.submodule_search_locations if package else None
    spec = PathFinder.find_spec("pyaegis._aegis_ffi", places) if places else None
    if spec is None or spec.loader is None:
        return None
    module: Any = module_from_spec(spec)
    spec.loader.exec_module(module)
    module.lib.aegis_init()  # Picks the code for this processor.
    return module.ffi, module.lib


def available_ciphers() -> list[str]:
    """Names that `make_aead` takes on this machine, the preferred one first."""
    return [*([AEGIS] if has_aegis() else []), AES_GCM, CHACHA]


def make_aead(name: str, key: bytes) -> Aead:
    """The AEAD `name` under a key of 32 bytes. Raises KeyError for a name that isn't one."""
    makers: dict[str, Callable[[bytes], Aead]] = {
        CHACHA: _make_chacha,
        AEGIS: _make_aegis,
        AES_GCM: _make_aes,
    }
    return makers[name](key)


def capabilities(choice: CipherChoice, *, aes_hardware: bool) -> Capability:
    """What we announce. Both AES-based ciphers are slow, and leak by timing, without hardware."""
    able = Capability.TIMESTAMPS
    if not aes_hardware:
        return able
    if choice in (CipherChoice.AUTO, CipherChoice.AEGIS) and has_aegis():
        able |= Capability.AEGIS
    if choice in (CipherChoice.AUTO, CipherChoice.AES):
        able |= Capability.AES_GCM
    return able


def choose_cipher(ours: Capability, theirs: Capability) -> str:
    """The cipher for data between two peers (PROTOCOL 7, cipher choice); symmetric."""
    both = ours & theirs
    if Capability.AEGIS in both:
        return AEGIS
    return AES_GCM if Capability.AES_GCM in both else CHACHA


class KeyPair:
    """An X25519 pair."""

    __slots__ = ("public", "secret")

    def __init__(self, secret: bytes) -> None:
        self.secret = secret
        self.public: bytes = nacl.bindings.crypto_scalarmult_base(secret)


def shared_secret(pair: KeyPair, remote: bytes) -> bytes | None:
    """X25519; None for a public key that leaves no secret (RFC 7748, 6.1: the all-zero result)."""
    try:
        secret: bytes = nacl.bindings.crypto_scalarmult(pair.secret, remote)
    except nacl.exceptions.CryptoError:
        return None
    return secret


def session_key(*, psk: bytes, shared: bytes, receiver: bytes, sender: bytes) -> bytes:
    """The key for data from `sender` to `receiver`, both public keys (PROTOCOL 4)."""
    return hashlib.blake2b(shared + receiver + sender, digest_size=32, key=psk).digest()


def confirmation(public: bytes) -> bytes:
    """What proves, in 8 bytes, that a peer knows a public key (PROTOCOL 7, extension type 3)."""
    return hashlib.blake2b(public, digest_size=32).digest()[:CONFIRM_SIZE]


class _Compiled:
    """An AEAD of a C library: one call a row, in place, with pointers that were made before.

    `sealing` and `opening` put the arguments of these calls in order, `constants` among them:
    those of one call, or a column for each parameter of many.
    """

    __slots__ = (
        "_bytes",
        "_constants",
        "_decrypt",
        "_encrypt",
        "_ffi",
        "_first",
        "_nonces",
        "_one",
        "_opening",
        "_sealing",
        "_times",
    )

    def __init__(
        self,
        *,
        ffi: Any,
        encrypt: Callable[..., int],
        decrypt: Callable[..., int],
        sealing: Callable[..., tuple[Any, ...]],
        opening: Callable[..., tuple[Any, ...]],
        constants: tuple[Any, ...],
    ) -> None:
        """`constants` ends with the key, whose type is what the functions take for all bytes."""
        self._ffi = ffi
        self._bytes = ffi.typeof(ffi.typeof(constants[-1]).item.cname + " *")
        self._encrypt = encrypt
        self._decrypt = decrypt
        self._sealing = sealing
        self._opening = opening
        self._one = constants
        self._constants = tuple(map(repeat, constants))
        self._make_nonces(_ROWS)

    def _make_nonces(self, count: int) -> None:
        """Room for the times of so many rows, each with the zeros that make it a nonce."""
        nonces = Buffer(count * _NONCE_MAX)
        self._times: npt.NDArray[np.uint8] = np.ndarray((count, _NONCE_MAX), np.uint8, nonces)
        self._first = memoryview(nonces)[:TIME_SIZE]
        start = self._times.ctypes.data
        self._nonces = [self._ffi.cast("void *", start + _NONCE_MAX * row) for row in range(count)]

    def _take_times(self, datagrams: Batch) -> list[Any]:
        """The nonces of all rows; each begins with the time, so that it is the data too."""
        count = datagrams.count
        if count == 1:
            at = datagrams.offset
            self._first[:] = datagrams.buffer[at : at + TIME_SIZE]
            return self._nonces
        if count > len(self._nonces):
            self._make_nonces(count)
        self._times[:count, :TIME_SIZE] = np.ndarray(
            (count, TIME_SIZE), np.uint8, datagrams.buffer, datagrams.offset, (datagrams.stride, 1)
        )
        return self._nonces

    def _pointers(self, buffer: bytearray, datagrams: Batch) -> list[Any]:
        """To the text of each row at least, in a buffer that has the same rows."""
        # Single rows come in all sizes.
        place = self._bytes, datagrams.offset, datagrams.stride if datagrams.count > 1 else 0
        kept = buffer.pointers if isinstance(buffer, Buffer) else {}
        found = kept.get(place)
        if found is not None and len(found) >= datagrams.count:
            return found
        if len(kept) >= _PLACES_KEPT:
            kept.clear()
        ffi = self._ffi
        # Adding to one is three times as fast as casting each.
        text = ffi.cast(self._bytes, ffi.from_buffer(buffer)) + TIME_SIZE
        found = kept[place] = [text + at for at in datagrams.starts()]
        return found

    def seal(self, datagrams: Batch) -> None:
        texts, nonces = self._pointers(datagrams.buffer, datagrams), self._take_times(datagrams)
        if datagrams.count == 1:
            size = datagrams.size - OVERHEAD
            self._encrypt(*self._sealing(texts[0], size, nonces[0], *self._one))
            return
        for part, size in _alike(datagrams):
            sizes = repeat(size - OVERHEAD)
            columns = self._sealing(texts[part], sizes, nonces[part], *self._constants)
            any(map(self._encrypt, *columns))  # It always returns 0.

    def open(self, datagrams: Batch, into: bytearray) -> list[bool]:
        texts, nonces = self._pointers(datagrams.buffer, datagrams), self._take_times(datagrams)
        plain = self._pointers(into, datagrams)
        if datagrams.count == 1:
            size = datagrams.size - TIME_SIZE
            one = self._opening(plain[0], texts[0], size, nonces[0], *self._one)
            return [not self._decrypt(*one)]
        failed: list[int] = []
        for part, size in _alike(datagrams):
            rows = plain[part], texts[part], repeat(size - TIME_SIZE), nonces[part]
            failed += map(self._decrypt, *self._opening(*rows, *self._constants))
        return [not one for one in failed] if any(failed) else [True] * datagrams.count


def _alike(batch: Batch) -> list[tuple[slice, int]]:
    """The rows in parts of one size."""
    if batch.last == batch.size:
        return [(slice(batch.count), batch.size)]
    end = batch.count - 1
    return [(slice(end), batch.size), (slice(end, batch.count), batch.last)]


def _make_chacha(key: bytes) -> Aead:
    return _make_sodium("crypto_aead_chacha20poly1305", key) or _Wrapped(
        CHACHA, *_public_chacha(key)
    )


def _make_aes(key: bytes) -> Aead:
    # PyNaCl has it since 1.6. That of libsodium 1.0.18 in Debian is no faster than the other way.
    return _make_sodium("crypto_aead_aes256gcm", key) or _Wrapped(AES_GCM, *_public_aes(key))


def _make_sodium(name: str, key: bytes) -> Aead | None:
    """An AEAD of libsodium, whose functions all look alike; None where it isn't to be found."""
    try:
        from nacl._sodium import ffi, lib

        encrypt, decrypt = getattr(lib, f"{name}_encrypt"), getattr(lib, f"{name}_decrypt")
    except (ImportError, AttributeError):
        return None
    # Without it libsodium silently runs its slowest code; PyNaCl has done it at import.
    nacl.bindings.sodium_init()
    is_able = getattr(lib, f"{name}_is_available", None)
    if is_able is not None and not is_able():
        return None  # AES-256-GCM is for processors with AES only.
    return _Compiled(
        ffi=ffi,
        encrypt=encrypt,
        decrypt=decrypt,
        sealing=lambda text, size, nonce, null, six, secret: (
            *(text, null, text, size, nonce, six, null, nonce, secret),
        ),
        opening=lambda plain, text, size, nonce, null, six, secret: (
            *(plain, null, null, text, size, nonce, six, nonce, secret),
        ),
        constants=(ffi.NULL, TIME_SIZE, ffi.new("unsigned char[]", key)),
    )


def _make_aegis(key: bytes) -> Aead:
    loaded = _load_aegis()
    if loaded is None or not hasattr(loaded[1], "aegis256_encrypt"):
        return _Wrapped(AEGIS, *_public_aegis(key))
    ffi, lib = loaded
    return _Compiled(
        ffi=ffi,
        encrypt=lib.aegis256_encrypt,
        decrypt=lib.aegis256_decrypt,
        sealing=lambda text, size, nonce, tag, six, secret: (
            *(text, tag, text, size, nonce, six, nonce, secret),
        ),
        opening=lambda plain, text, size, nonce, tag, six, secret: (
            *(plain, text, size, tag, nonce, six, nonce, secret),
        ),
        constants=(TAG_SIZE, TIME_SIZE, ffi.new("uint8_t[]", key)),
    )


class _Wrapped:
    """An AEAD of a library's public interface: `seal(nonce, text, ad)` and `open`, with copies."""

    __slots__ = ("_open", "_padding", "_seal")

    def __init__(
        self,
        name: str,
        seal: Callable[[bytes, bytes, bytes], bytes],
        open_: Callable[[bytes, bytes, bytes], bytes | None],
    ) -> None:
        self._padding = bytes(_NONCE_SIZE[name] - TIME_SIZE)
        self._seal = seal
        self._open = open_

    def seal(self, datagrams: Batch) -> None:
        for row in datagrams.rows():
            time = bytes(row[:TIME_SIZE])
            row[TIME_SIZE:] = self._seal(
                time + self._padding, bytes(row[TIME_SIZE:-TAG_SIZE]), time
            )

    def open(self, datagrams: Batch, into: bytearray) -> list[bool]:
        good = []
        at = datagrams.offset + TIME_SIZE
        for row in datagrams.rows():
            time = bytes(row[:TIME_SIZE])
            text = self._open(time + self._padding, bytes(row[TIME_SIZE:]), time)
            if text is not None:
                into[at : at + len(text)] = text
            good.append(text is not None)
            at += datagrams.stride
        return good


def _public_aes(key: bytes) -> tuple[Any, Any]:
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    cipher = AESGCM(key)

    def open_(nonce: bytes, text: bytes, ad: bytes) -> bytes | None:
        try:
            return cipher.decrypt(nonce, text, ad)
        except InvalidTag:
            return None

    return cipher.encrypt, open_


def _public_chacha(key: bytes) -> tuple[Any, Any]:
    def seal(nonce: bytes, text: bytes, ad: bytes) -> bytes:
        sealed: bytes = nacl.bindings.crypto_aead_chacha20poly1305_encrypt(text, ad, nonce, key)
        return sealed

    def open_(nonce: bytes, text: bytes, ad: bytes) -> bytes | None:
        try:
            opened: bytes = nacl.bindings.crypto_aead_chacha20poly1305_decrypt(text, ad, nonce, key)
        except nacl.exceptions.CryptoError:
            return None
        return opened

    return seal, open_


def _public_aegis(key: bytes) -> tuple[Any, Any]:
    import pyaegis

    cipher = pyaegis.Aegis256(tag_size=TAG_SIZE)

    def open_(nonce: bytes, text: bytes, ad: bytes) -> bytes | None:
        try:
            return bytes(cipher.decrypt(key, nonce, text, ad))
        except pyaegis.DecryptionError:
            return None

    return lambda nonce, text, ad: cipher.encrypt(key, nonce, text, ad), open_
