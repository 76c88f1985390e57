"""Costs are measured operation by operation, and plans are counted by them."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from vfl.paillier.cost import Costs, measure
from vfl.paillier.exponentiation import plan
from vfl.paillier.keys import PrivateKey


def test_every_operation_takes_some_time_and_a_packed_value_less_than_a_ciphertext(key: PrivateKey) -> None:
    costs = measure(key, seconds=0.2)
    assert costs.key_bits == 512
    assert all(0 < seconds < 1 for name, seconds in asdict(costs).items() if name.endswith("_s"))
    assert costs.multiplication_s < costs.exact_s < costs.covering_s
    assert costs.packing_s < costs.exact_s
    assert costs.unpacking_s < costs.decryption_s


@pytest.mark.parametrize("sizes", [(16, 16, 15), (256, 16, 15), (48, 86, 15)])
def test_products_of_powers_take_as_long_as_their_multiplications(sizes: tuple[int, int, int]) -> None:
    costs = Costs(2048, 1.0, 1.0, 5e-6, 1.0, 1.0, 1.0, 1.0)
    assert costs.products_s(*sizes) == pytest.approx(plan(*sizes).multiplications * 5e-6)
