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
from typing import Any, Protocol

import nacl.bindings
import nacl.exceptions

from glorytun.core.batch import Batch
from glorytun.core.settings import CipherChoice
from glorytun.core.wire import OVERHEAD, TAG_SIZE, TIME_SIZE, Capability

CHACHA = "chacha20poly1305"
AEGIS = "aegis256"
AES_GCM = "aes256gcm"

_NONCE_SIZE = {CHACHA: 8, AEGIS: 32, AES_GCM: 12}
"""Of the time field and zeros up to it (PROTOCOL 1)."""
CONFIRM_SIZE = 8


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
        AES_GCM: _AesGcm,
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
    """An AEAD of a C library: one call a row, in place."""

    __slots__ = ("_array", "_decrypt", "_encrypt", "_from_buffer", "_key", "_nonce", "_nonce_view")

    def __init__(
        self,
        *,
        ffi: Any,
        byte: str,
        key: bytes,
        nonce_size: int,
        encrypt: Callable[[Any, Any, int, Any, Any], int],
        decrypt: Callable[[Any, Any, int, Any, Any, Any], int],
    ) -> None:
        self._from_buffer = ffi.from_buffer
        self._array = f"{byte}[]"
        self._key = ffi.new(self._array, key)
        self._nonce = ffi.new(self._array, nonce_size)
        self._nonce_view = ffi.buffer(self._nonce, TIME_SIZE)
        self._encrypt = encrypt
        self._decrypt = decrypt

    def seal(self, datagrams: Batch) -> None:
        buffer = datagrams.buffer
        start = self._from_buffer(self._array, buffer)
        at = datagrams.offset
        for index in range(datagrams.count):
            self._nonce_view[:] = buffer[at : at + TIME_SIZE]
            text = start + at + TIME_SIZE
            self._encrypt(text, text, datagrams.row_size(index) - OVERHEAD, self._nonce, self._key)
            at += datagrams.stride

    def open(self, datagrams: Batch, into: bytearray) -> list[bool]:
        buffer = datagrams.buffer
        source = self._from_buffer(self._array, buffer)
        target = self._from_buffer(self._array, into)
        at = datagrams.offset
        good = []
        for index in range(datagrams.count):
            self._nonce_view[:] = buffer[at : at + TIME_SIZE]
            text = at + TIME_SIZE
            size = datagrams.row_size(index) - TIME_SIZE
            status = self._decrypt(
                target + text, source + text, size, source + at, self._nonce, self._key
            )
            good.append(status == 0)
            at += datagrams.stride
        return good


def _make_chacha(key: bytes) -> Aead:
    try:
        from nacl._sodium import ffi, lib

        encrypt = lib.crypto_aead_chacha20poly1305_encrypt
        decrypt = lib.crypto_aead_chacha20poly1305_decrypt
    except (ImportError, AttributeError):
        return _Wrapped(CHACHA, *_public_chacha(key))
    # Without it libsodium silently runs its slowest code; PyNaCl has done it at import.
    nacl.bindings.sodium_init()
    null = ffi.NULL
    return _Compiled(
        ffi=ffi,
        byte="unsigned char",
        key=key,
        nonce_size=_NONCE_SIZE[CHACHA],
        encrypt=lambda out, text, size, nonce, key: encrypt(
            out, null, text, size, nonce, TIME_SIZE, null, nonce, key
        ),
        decrypt=lambda out, text, size, time, nonce, key: decrypt(
            out, null, null, text, size, time, TIME_SIZE, nonce, key
        ),
    )


def _make_aegis(key: bytes) -> Aead:
    loaded = _load_aegis()
    if loaded is None or not hasattr(loaded[1], "aegis256_encrypt"):
        return _Wrapped(AEGIS, *_public_aegis(key))
    ffi, lib = loaded
    encrypt, decrypt = lib.aegis256_encrypt, lib.aegis256_decrypt
    return _Compiled(
        ffi=ffi,
        byte="uint8_t",
        key=key,
        nonce_size=_NONCE_SIZE[AEGIS],
        encrypt=lambda out, text, size, nonce, key: encrypt(
            out, TAG_SIZE, text, size, nonce, TIME_SIZE, nonce, key
        ),
        decrypt=lambda out, text, size, time, nonce, key: decrypt(
            out, text, size, TAG_SIZE, time, TIME_SIZE, nonce, key
        ),
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


class _AesGcm(_Wrapped):
    __slots__ = ()

    def __init__(self, key: bytes) -> None:
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        cipher = AESGCM(key)

        def open_(nonce: bytes, text: bytes, ad: bytes) -> bytes | None:
            try:
                return cipher.decrypt(nonce, text, ad)
            except InvalidTag:
                return None

        super().__init__(AES_GCM, cipher.encrypt, open_)


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
