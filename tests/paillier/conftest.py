"""Small keys, which protect nothing, made once."""

from __future__ import annotations

import pytest

from vfl.paillier.keys import PrivateKey, make_keys


@pytest.fixture(scope="session")
def key() -> PrivateKey:
    return make_keys(512, unsafe_small_key=True)


@pytest.fixture(scope="session")
def other_key() -> PrivateKey:
    return make_keys(512, unsafe_small_key=True)


@pytest.fixture(scope="session")
def full_key() -> PrivateKey:
    return make_keys()
