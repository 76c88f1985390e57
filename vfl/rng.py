"""Keeps every party's random state and grad mode apart, where several share one process.

torch, numpy and Python's `random` each have one generator a process, and torch one grad mode a
thread. Parties that take turns in one thread would draw from each other's; each therefore gets an
`RngStream`, and computes only inside it.
"""

from __future__ import annotations

import ctypes
import hashlib
import random
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from numpy.random import MT19937, BitGenerator, mtrand
from torch import Tensor

from vfl.errors import RoleError, StorageError

# struct { uint32 key[624]; int pos; }, at MT19937.ctypes.state_address
_MT19937_BYTES: Final = 4 * 624 + 4


def derive_seed(seed: int, *purpose: str) -> int:
    """Gives the seed of one purpose, independent of every other purpose's, in [0, 2**63).

    Args:
        seed: The job's seed, any integer.
        purpose: Words that say what for, such as `"dropout", "bank"`; their number counts too.
    """
    words = [str(int(seed)), *purpose]
    # Lengths keep ("ab", "c") and ("a", "bc") apart.
    text = b"".join(len(word.encode()).to_bytes(8, "little") + word.encode() for word in words)
    digest = hashlib.blake2b(text, digest_size=8, person=b"vfl.seed").digest()
    return int.from_bytes(digest, "little") >> 1


class _Device(NamedTuple):
    """The generator of an accelerator, behind one pair of functions."""

    get: Callable[[], Tensor]
    put: Callable[[Tensor], None]


class _State(NamedTuple):
    """All that one party's computing can change in the process."""

    torch: Tensor
    device: Tensor | None
    bits: BitGenerator
    normal: float | None  # the second of a pair of normals, which numpy keeps for the next call
    python: tuple[Any, ...]
    grad: bool


def _accelerator(device: torch.device) -> _Device | None:
    if device.type == "cuda" and torch.cuda.is_available():
        index = device.index if device.index is not None else torch.cuda.current_device()
        return _Device(
            lambda: torch.cuda.get_rng_state(index), lambda state: torch.cuda.set_rng_state(state, index)
        )
    if device.type == "mps" and torch.backends.mps.is_available():
        return _Device(torch.mps.get_rng_state, torch.mps.set_rng_state)
    return None


def _take_numpy() -> tuple[BitGenerator, float | None]:
    """Reads numpy's global state and spoils its kept normal: `_put_numpy` has to follow.

    `get_state` and `set_state` take 42 µs each, for 624 integers through Python. The generator is
    swapped as an object instead (0.4 µs). What that leaves out is the kept normal, and the quick
    question for it is a draw: if the draw moved no bits, it was the kept one.
    """
    bits = mtrand.get_bit_generator()
    if not isinstance(bits, MT19937):
        state = np.random.get_state(legacy=False)
        return bits, float(state["gauss"]) if state["has_gauss"] else None
    address = bits.ctypes.state_address
    before = ctypes.string_at(address, _MT19937_BYTES)
    drawn = np.random.standard_normal()
    if ctypes.string_at(address, _MT19937_BYTES) == before:
        return bits, drawn
    ctypes.memmove(address, before, _MT19937_BYTES)
    return bits, None


def _put_numpy(bits: BitGenerator, normal: float | None) -> None:
    mtrand.set_bit_generator(bits)  # forgets the kept normal
    if normal is not None:
        np.random.set_state({**bits.state, "has_gauss": 1, "gauss": normal})


def _capture(device: _Device | None) -> _State:
    return _State(
        torch.get_rng_state(),
        device.get() if device else None,
        *_take_numpy(),
        random.getstate(),
        torch.is_grad_enabled(),
    )


def _restore(state: _State, device: _Device | None) -> None:
    torch.set_rng_state(state.torch)
    if device and state.device is not None:
        device.put(state.device)
    _put_numpy(state.bits, state.normal)
    random.setstate(state.python)
    torch.set_grad_enabled(state.grad)


def _unpacked_numpy(state: Mapping[str, Any]) -> MT19937:
    bits = MT19937(0)
    key = state["numpy_words"].numpy().astype(np.uint32)
    bits.state = {"bit_generator": "MT19937", "state": {"key": key, "pos": int(state["numpy_position"])}}
    return bits


class RngStream:
    """Is one party's own random state and grad mode, in force inside `with stream:`.

    On entry the party's state takes the place of the caller's; on exit it is kept and the caller's
    is put back, bit for bit. A role suspended within `torch.no_grad()` leaks nothing and gets its
    grad mode back when it goes on. A stream draws what torch draws after `torch.manual_seed(seed)`.
    Entering and leaving together take about 40 µs, nearly all of it for Python's `random`.

    Args:
        seed: Seeds all generators; see `derive_seed`.
        device: The party's device. Its generator belongs to the stream where the device is there.
    """

    def __init__(self, seed: int, device: torch.device | str = "cpu") -> None:
        where = torch.device(device)
        self._device = _accelerator(where)
        self._outer: _State | None = None
        self._outer_inference = False
        self._own = _State(
            torch.Generator().manual_seed(seed).get_state(),
            torch.Generator(device=where).manual_seed(seed).get_state() if self._device else None,
            MT19937(seed),
            None,
            random.Random(seed).getstate(),  # noqa: S311 - dropout and shuffles, no secrets
            True,
        )

    def __enter__(self) -> RngStream:
        if self._outer is not None:
            raise RoleError("a random stream is entered twice: give every party a stream of its own")
        self._outer = _capture(self._device)
        self._outer_inference = torch.is_inference_mode_enabled()
        _restore(self._own, self._device)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Keeps the party's state and puts the caller's back.

        Raises:
            RoleError: The party was suspended inside `torch.inference_mode()`, which cannot be
                taken from it and would hold for its peers.
        """
        assert self._outer is not None  # noqa: S101 - `with` pairs the two
        self._own = _capture(self._device)
        _restore(self._outer, self._device)
        self._outer = None
        if error is None and torch.is_inference_mode_enabled() and not self._outer_inference:
            raise RoleError(
                "a role waits inside torch.inference_mode(): use torch.no_grad() around a say or hear"
            )

    def state_dict(self) -> dict[str, Any]:
        """Gives the party's state, live if the stream is entered, as tensors, ints and floats.

        Raises:
            RoleError: The party replaced numpy's bit generator by one that is not MT19937.
        """
        own = self._current()
        if not isinstance(own.bits, MT19937):
            name = type(own.bits).__name__
            raise RoleError(
                f"numpy's bit generator is {name}: a checkpoint holds MT19937 only, numpy's own default"
            )
        words = own.bits.state["state"]
        return {
            "torch": own.torch,
            **({} if own.device is None else {"device": own.device}),
            "numpy_words": torch.from_numpy(words["key"].astype(np.int64)),
            "numpy_position": int(words["pos"]),
            "numpy_normal": own.normal,
            "python_version": own.python[0],
            "python_words": torch.tensor(own.python[1], dtype=torch.int64),
            "python_normal": own.python[2],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from what `state_dict` gave; takes effect at once if the stream is entered.

        A device's state is taken over where both have one; on another kind of device the stream
        goes on from its seed there.

        Raises:
            StorageError: The state is not one that `state_dict` gave.
        """
        own = self._current()
        try:
            python = (state["python_version"], tuple(state["python_words"].tolist()), state["python_normal"])
            random.Random().setstate(python)  # noqa: S311 - tries the state, draws nothing
            torch.Generator().set_state(state["torch"])
            bits = _unpacked_numpy(state)
            loaded = _State(
                state["torch"].clone(),
                state.get("device", own.device) if self._device else None,
                bits,
                state["numpy_normal"],
                python,
                own.grad,
            )
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            why = " ".join(str(error).split())
            raise StorageError(
                f"the random state in a checkpoint cannot be used ({why}): start afresh"
            ) from error
        if self._outer is None:
            self._own = loaded
        else:
            _restore(loaded, self._device)

    def _current(self) -> _State:
        if self._outer is None:
            return self._own
        live = _capture(self._device)
        _put_numpy(live.bits, live.normal)
        return live
