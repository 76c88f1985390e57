"""What a party encrypts, computes and decrypts with, on the cores that it is granted; or its plain twin."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from gmpy2 import mpz
from torch import Tensor

from protocols.paillier.roster import Config
from vfl.errors import RemoteProtocolError
from vfl.paillier.clear import ClearKey
from vfl.paillier.keys import KEY_BITS, PrivateKey, PublicKey, make_keys
from vfl.paillier.obfuscation import Covering, Exact, Obfuscators
from vfl.paillier.packing import Layout
from vfl.paillier.pool import Pool
from vfl.paillier.shipping import plain_from_bytes, plain_to_bytes, receive, ship
from vfl.paillier.vector import EncryptedMatrix, Key, Opener
from vfl.paillier.workers import Workers


@dataclass(frozen=True, repr=False)
class Kit:
    """Is one party's: the same words, whether anything is encrypted or not.

    Attributes:
        peer: whom it speaks with.
        key: under which numbers are said.
        obfuscators: of that key, each used once.
        opener: the other half of the key; only the feature party's is secret, and the label party has none.
        workers: further processes; None on one core.
        cores: how many this party may use.
    """

    peer: str
    key: Key
    obfuscators: Obfuscators
    opener: Opener | None = None
    workers: Workers | None = None
    cores: int = 1

    def encrypt(self, layout: Layout, values: np.ndarray, bound: int) -> Tensor:
        """Puts [rows, width] integers under the key, and into bytes."""
        return self.ship(EncryptedMatrix.encrypt(self.key, layout, values, bound))

    def ship(self, matrix: EncryptedMatrix) -> Tensor:
        """Turns a matrix into bytes, re-randomised."""
        return as_tensor(ship(matrix, self.obfuscators))

    def receive(self, said: Tensor, layout: Layout, bound: int) -> EncryptedMatrix:
        """Reads a matrix that the peer shipped.

        Raises:
            RemoteProtocolError: if it is none.
        """
        with blaming(self.peer):
            return receive(as_bytes(said), self.key, layout, bound)

    def open(self, said: Tensor, layout: Layout, bound: int) -> list[mpz]:
        """Reads the plaintexts in [0, n) of a matrix that the peer shipped.

        Raises:
            RemoteProtocolError: if it is none.
        """
        assert self.opener is not None  # noqa: S101 - the feature party asks, and has the key
        return self.receive(said, layout, bound).plaintexts(self.opener, self.cores)

    def read(self, plain: list[mpz], layout: Layout, bound: int) -> np.ndarray:
        """Reads the integers [rows, width] that plaintexts hold.

        Raises:
            RemoteProtocolError: if one is beyond what both parties know to be the bound.
        """
        with blaming(self.peer):
            values = layout.unpack(plain, self.key.n)
            if values.size and max(abs(int(values.min())), abs(int(values.max()))) > bound:
                raise ValueError("a number that no honest party computes")
            return values

    def say_plain(self, numbers: Sequence[mpz]) -> Tensor:
        """Turns plaintexts, masked ones, into bytes; each modulo n."""
        return as_tensor(plain_to_bytes([number % self.key.n for number in numbers], self.key))

    def hear_plain(self, said: Tensor, masks: Sequence[mpz]) -> list[mpz]:
        """Reads plaintexts and takes masks off them.

        Raises:
            RemoteProtocolError: if they are of another count or width, or one is not below n.
        """
        with blaming(self.peer):
            numbers = plain_from_bytes(as_bytes(said), self.key, len(masks))
        return [(number - mask) % self.key.n for number, mask in zip(numbers, masks, strict=True)]


@contextmanager
def holding(config: Config, peer: str, ahead: int) -> Iterator[tuple[Kit, Tensor]]:
    """Makes a key pair; gives the feature party's kit and the public half as it is said.

    Args:
        config: the protocol's options.
        peer: the label party.
        ahead: how many obfuscators are made ahead at the most.
    """
    if config.encryption == "none":
        clear = ClearKey(config.key_bits)
        yield Kit(peer, clear, clear, clear), as_tensor(b"")
        return
    key = make_keys(config.key_bits, unsafe_small_key=config.unsafe_small_key)
    with _obfuscating(key, Exact, ahead, config) as (obfuscators, workers, cores):
        yield Kit(peer, key.public, obfuscators, key, workers, cores), as_tensor(key.public.to_bytes())


@contextmanager
def computing(config: Config, peer: str, said: Tensor, ahead: int) -> Iterator[Kit]:
    """Reads the feature party's public key; gives the label party's kit.

    Args:
        config: the protocol's options.
        peer: the feature party.
        said: its key.
        ahead: how many obfuscators are made ahead at the most.

    Raises:
        RemoteProtocolError: if it is no key, or not of the size that the job says.
    """
    raw = bytes(as_bytes_of(peer, said))
    if config.encryption == "none":
        if raw:
            raise RemoteProtocolError(peer, 'said a public key, where encryption = "none" in the job')
        clear = ClearKey(config.key_bits)
        yield Kit(peer, clear, clear)
        return
    with blaming(peer):
        key = PublicKey.from_bytes(raw, unsafe_small_key=config.unsafe_small_key)
        if key.bits != config.key_bits:
            raise ValueError(f"a key of {key.bits} bits where {config.key_bits} are due")
    with _obfuscating(key, Covering, ahead, config) as (obfuscators, workers, cores):
        yield Kit(peer, key, obfuscators, None, workers, cores)


@contextmanager
def blaming(peer: str) -> Iterator[None]:
    """Says who sent what cannot be read."""
    try:
        yield
    except ValueError as error:
        raise RemoteProtocolError(peer, f"sent {error}") from error


def as_tensor(raw: bytes) -> Tensor:
    """Makes a tensor of bytes, as a message carries it."""
    return torch.frombuffer(bytearray(raw), dtype=torch.uint8) if raw else torch.zeros(0, dtype=torch.uint8)


def as_bytes(said: Tensor) -> memoryview:
    """Reads a tensor of bytes.

    Raises:
        ValueError: if it is another kind of tensor.
    """
    if said.dtype != torch.uint8 or said.dim() != 1:
        raise ValueError(f"{said.dtype} {tuple(said.shape)} where bytes are due")
    return said.contiguous().numpy().data


def as_bytes_of(peer: str, said: Tensor) -> memoryview:
    """Reads a tensor of bytes that a peer sent.

    Raises:
        RemoteProtocolError: if it is another kind of tensor.
    """
    with blaming(peer):
        return as_bytes(said)


@contextmanager
def _obfuscating(
    key: PrivateKey | PublicKey, kind: type[Exact] | type[Covering], ahead: int, config: Config
) -> Iterator[tuple[Obfuscators, Workers | None, int]]:
    """Makes obfuscators in the background: in another process where there are cores for one."""
    cores = (
        torch.get_num_threads() if config.key_bits in KEY_BITS else 1
    )  # a small key is not worth a process
    source: Obfuscators = kind(key)  # type: ignore[arg-type]
    with ExitStack() as stack:
        workers = stack.enter_context(Workers(cores)) if cores > 1 else None
        batch = workers.obfuscators(key, kind, place=cores - 1) if workers else None
        yield stack.enter_context(Pool(source, ahead, batch)), workers, cores
