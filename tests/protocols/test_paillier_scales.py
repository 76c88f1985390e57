"""No sum can leave its slot, whatever the options: checked at the extremes against Python's integers."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from gmpy2 import mpz
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from protocols.paillier.roster import Config
from protocols.paillier.scales import Scales
from protocols.paillier.start import draw_factor, draw_rotation
from vfl.errors import ConfigError
from vfl.paillier.clear import ClearKey
from vfl.paillier.noise import Draws
from vfl.paillier.packing import Layout
from vfl.paillier.share import Share

UPDATES = st.integers(0, 2**20)


@st.composite
def all_scales(draw: st.DrawFn) -> Scales:
    options = {
        "width": draw(st.integers(1, 9)),
        "lr": draw(st.floats(1e-4, 2.0)),
        "clip": draw(st.floats(0.1, 100.0)),
        "gradient_clip": draw(st.floats(0.01, 10.0)),
        "value_bits": draw(st.integers(8, 20)),
        "gradient_bits": draw(st.integers(8, 20)),
        "weight_fraction_bits": draw(st.integers(4, 20)),
        "noise_bits": draw(st.integers(40, 64)),
    }
    try:
        return Scales(
            Config.model_validate(options), draw(st.integers(1, 40)), draw(st.integers(1, 300)), draw(UPDATES)
        )
    except (ConfigError, ValueError):
        assume(False)
        raise


signs = st.lists(st.sampled_from([-1, 1]), min_size=8, max_size=8)


def survives(layout: Layout, values: np.ndarray, bound: int) -> bool:
    n = ClearKey(2048).n
    read = layout.unpack([mpz(number) % n for number in layout.pack(values)], n)
    return bool((read == values).all()) and max(abs(value) for value in values.flat) <= bound


@given(all_scales(), st.integers(1, 300), signs)
def test_the_largest_sums_fit_their_slots(scales: Scales, rows: int, signs: list[int]) -> None:
    b = min(rows, scales.batch_rows)
    turn = np.resize(np.array(signs, object), max(b, scales.d, scales.k))
    h = scales.activation.limit * np.ones((b, scales.d), object) * turn[:b, None]
    g = scales.gradient_limit(b) * np.ones((b, scales.k), object) * turn[:b, None]
    used = scales.used_bound * np.ones((scales.d, scales.k), object) * turn[None, : scales.k]
    assert survives(scales.product(b), (h @ used).T, scales.z_bound)
    assert survives(scales.embedding(b), g @ used.T, scales.embedding_bound(b))
    assert survives(scales.embedding(b), abs(g) @ abs(used).T, scales.embedding_bound(b))
    room = scales.gradient.packing.limit - scales.product_bound
    assert survives(scales.gradient, (h.T @ g).T + room, scales.gradient.packing.limit)
    assert survives(scales.gradient, -(abs(h).T @ abs(g)).T - room, scales.gradient.packing.limit)
    assert room >= scales.product_bound << scales.config.noise_bits


@given(all_scales())
def test_weights_never_pass_their_bound(scales: Scales) -> None:
    largest = scales.initial_bound + scales.updates * scales.batch_rows * scales.activation.limit * (
        (1 << (scales.config.gradient_bits - 1)) - 1
    )
    for weight in (largest, -largest):
        up, down = -(-(weight - 12345) >> scales.dropped_bits), 12345 >> scales.dropped_bits
        assert abs(up + down) <= scales.used_bound


@given(all_scales(), st.integers(1, 300))
def test_factors_and_products_lie_alike(scales: Scales, rows: int) -> None:
    b = min(rows, scales.batch_rows)
    columns, product = scales.columns(b), scales.product(b)
    assert (columns.packing, columns.width, columns.blocks) == (
        product.packing,
        product.width,
        product.blocks,
    )
    wide, gradient = scales.rows(b), scales.gradient
    assert (wide.packing, wide.width, wide.blocks) == (gradient.packing, gradient.width, gradient.blocks)
    share, embedding = scales.share(b), scales.embedding(b)
    assert (share.packing, share.width, share.copies) == (
        embedding.packing, embedding.width, embedding.rows_each
    )  # fmt: skip


@given(all_scales(), st.floats(-1, 1), st.integers(1, 300))
def test_what_is_within_the_clips_is_not_clipped_and_rounded_by_half_a_unit(
    scales: Scales, part: float, rows: int
) -> None:
    b, config = min(rows, scales.batch_rows), scales.config
    h = np.full((1, 1), part * config.clip)
    integer, n_clipped = scales.activation.encode(h)
    assert n_clipped == 0
    assert abs(Fraction(int(integer[0, 0]), 1 << scales.activation.fraction_bits) - Fraction(h[0, 0])) <= (
        Fraction(1, 2 << scales.activation.fraction_bits)
    )
    delta = np.full((b, 1), part * config.gradient_clip / b)
    integers, n_clipped = scales.gradient_integers(delta)
    assert n_clipped == 0 or abs(part) > 0.999  # a limit is a whole number
    unit = Fraction(1, 1 << scales.gradient_fraction_bits)
    wanted = Fraction(config.lr) * Fraction(delta[0, 0])
    slack = Fraction(1, 1 << 50) * abs(wanted) + unit * n_clipped
    assert abs(int(integers[0, 0]) * unit - wanted) <= unit / 2 + slack
    assert abs(int(integers[0, 0])) <= scales.gradient_limit(b)


def test_what_is_beyond_the_clips_is_clipped_and_counted() -> None:
    scales = Scales(Config(width=2, lr=0.1), 3, 8, 10)
    assert scales.activation.encode(np.array([[1e6, -1e6, 0.5]]))[1] == 2
    integers, n_clipped = scales.gradient_integers(np.array([[5.0, -5.0]] * 8, np.float32))
    assert n_clipped == 16
    assert set(integers.flat) == {scales.gradient_limit(8), -scales.gradient_limit(8)}
    assert scales.gradient_limit(2) == 4 * scales.gradient_limit(8)


def test_numbers_are_read_at_their_scales() -> None:
    scales = Scales(Config(width=2, lr=0.1, weight_fraction_bits=10), 3, 8, 10)
    assert scales.activation.fraction_bits == math.floor(math.log2(32767 / 8))
    bits = scales.activation.fraction_bits + 10
    assert scales.z(np.array([3 << bits, -(1 << (bits - 1))], object)).tolist() == [3.0, -0.5]
    unit = 1 << (scales.gradient_fraction_bits + 10)
    assert scales.embedding_gradient(np.array([unit])).tolist() == [np.float32(10.0)]


@settings(max_examples=30, deadline=None)
@given(all_scales(), st.integers(0, 1000))
def test_weights_begin_within_their_bound_and_fit_their_slots(scales: Scales, seed: int) -> None:
    draws = Draws(seed.to_bytes(4, "big"))
    drawn, rotation = draw_factor(scales, draws).astype(object), draw_rotation(scales, draws)
    signs = np.where(rotation < 0, -1, 1)
    furthest = rotation @ (scales.factor_bound * signs.T[:, :1].astype(object))
    for product in (rotation @ drawn, furthest):
        assert max(abs(one) for one in product.flat) <= scales.start_bound
    bound, start = scales.start_bound, scales.start
    room = start.packing.limit - bound
    assert room >= bound << scales.config.noise_bits
    assert survives(start, np.full((scales.d, scales.k), bound + room, object), start.packing.limit)
    share = np.full((1, 1), start.packing.limit + 1, object) << scales.start_shift
    Share(1, 1).begin(share + (scales.updates << 128), 1, bytes(32))
    bits = (scales.rotation_fraction_bits, scales.factor_fraction_bits, scales.start_shift)
    assert sum(bits) == scales.fraction_bits


def test_a_rotation_is_orthogonal_and_every_one_as_likely() -> None:
    """The parts of a uniform rotation have mean 0, variance 1/d and fourth moment 3 / d (d + 2)."""
    d, n = 4, 3000
    scales, draws = Scales(Config(width=2), d, 8, 10), Draws(b"rotations")
    found = np.stack([draw_rotation(scales, draws) for _ in range(n)]) * 2.0**-scales.rotation_fraction_bits
    assert np.abs(found @ found.transpose(0, 2, 1) - np.eye(d)).max() < 2.0 ** (
        3 - scales.rotation_fraction_bits
    )
    assert np.abs(found.mean(0)).max() < 5.5 * (1 / d / n) ** 0.5
    assert np.abs((found**2).mean(0) - 1 / d).max() < 5.5 * ((3 / (d * (d + 2)) - 1 / d**2) / n) ** 0.5
    assert np.abs((found**4).mean(0) - 3 / (d * (d + 2))).max() < 0.02
    traces = np.trace(found, axis1=1, axis2=2)  # of variance 1; without the signs' correction, far from it
    assert abs(traces.mean()) < 5.5 / n**0.5
    assert abs(traces.var() - 1) < 0.15
    assert abs(np.linalg.det(found).mean()) < 5.5 / n**0.5


def test_what_is_rotated_has_the_variance_of_a_linear_layer() -> None:
    scales, draws = Scales(Config(width=30), 12, 8, 10), Draws(b"weights")
    drawn = np.stack([draw_factor(scales, draws) for _ in range(30)]) * 2.0**-scales.factor_fraction_bits
    assert drawn.var() == pytest.approx(torch.nn.Linear(4000, 12).weight.var().item() * 4000 / 12, rel=0.06)
    assert drawn.var() == pytest.approx(1 / 36, rel=0.05)
    assert np.abs(drawn).max() <= scales.factor_bound * 2.0**-scales.factor_fraction_bits <= 1.0


def test_a_batch_whose_numbers_do_not_fit_is_found_before_training_begins() -> None:
    config = Config(width=2, value_bits=24, gradient_bits=24, noise_bits=40, weight_fraction_bits=40)
    scales = Scales(config, 2000, 4000, 1 << 52)
    scales.check([4000])
    with pytest.raises(ConfigError, match="slots of"):
        scales.check([4000, 1])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"weight_fraction_bits": 40}, "weight_fraction_bits = 40: weights have 38"),
        ({"lr": 1e-300}, "set lr, clip"),
        ({"lr": 1e9, "gradient_clip": 1e9}, "set lr, clip"),
        ({"lr": 1e300, "gradient_clip": 1e300}, "set lr, clip"),
        ({"lr": 1e-160, "gradient_clip": 1e-160}, "set lr, clip"),
        ({"lr": 1e-40}, "set lr, clip"),
        ({"clip": 1e-320}, "set lr, clip"),
        ({"value_bits": 24, "gradient_bits": 24, "noise_bits": 80}, "lower noise_bits"),
    ],
)
def test_options_that_no_plaintext_holds_are_an_error_that_says_what_to_set(
    options: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        _ = Scales(Config.model_validate({"width": 2} | options), 16, 256, 1000).gradient
    assert "\n" not in str(caught.value)
