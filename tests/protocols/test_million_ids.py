"""A million ids a party, with a stand-in for the group: its own speed is the benchmark's affair."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from types import ModuleType

import numpy as np
import pytest
from aligning import roles_of

from protocols import ids, psi
from vfl.wire.rehearse import rehearse


class CheapBlinder:
    """Stands in for the group: a keyed hash for a point, and an exclusive or, which commutes as well."""

    def __init__(self, threads: int = 1) -> None:
        self._scalar = np.frombuffer(secrets.token_bytes(32), dtype=np.uint8)

    def __enter__(self) -> CheapBlinder:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def blind_ids(self, names: Sequence[str], salt: bytes) -> np.ndarray:
        raw = b"".join(hashlib.blake2b(name.encode(), key=salt, digest_size=32).digest() for name in names)
        return self.blind(np.frombuffer(raw, dtype=np.uint8).reshape(-1, 32))

    def blind(self, points: np.ndarray) -> np.ndarray:
        blinded: np.ndarray = points ^ self._scalar
        return blinded


@pytest.mark.parametrize("module", [psi, ids], ids=["psi", "ids"])
def test_a_million_ids_are_aligned(monkeypatch: pytest.MonkeyPatch, module: ModuleType) -> None:
    monkeypatch.setattr(psi, "Blinder", CheapBlinder)
    n = 1_000_000
    shuffled = np.random.default_rng(0)
    sets = {
        name: np.array([f"c{at}" for at in shuffled.permutation(n) + start], dtype=np.dtypes.StringDType())
        for name, start in {"hub": 0, "shop": n // 4}.items()
    }
    played = rehearse(roles_of(module, sets), module.MESSAGES, record=False)
    for name, own in sets.items():
        numbers = np.array([int(one[1:]) for one in own.tolist()])
        expected = np.flatnonzero((numbers >= n // 4) & (numbers < n))
        assert np.array_equal(played.results[name], expected)
