"""The weights that training begins with: drawn by one party, turned by the other, known to neither.

The feature party draws F0 [d, k], normal numbers; the label party an orthogonal P [d, d], uniform among all,
and uniform noise R. The feature party is told P F0 + R, which is its share of W_0 = P F0; the label party's
is -R. A normal F0 turned by any P is distributed as before, so that P tells nothing of W_0; and F0 tells
W_0ᵀ W_0 = F0ᵀ F0 but not where W_0 points, which is uniform.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from protocols.paillier.kit import Kit
from protocols.paillier.scales import Scales
from vfl.paillier.noise import Draws


def draw_factor(scales: Scales, draws: Draws) -> np.ndarray:
    """Draws what the feature party has rotated, [d, k] int64."""
    unit = scales.factor_deviation * 2.0**scales.factor_fraction_bits
    most = scales.factor_bound
    return np.clip(np.rint(unit * _normal(draws, scales.d, scales.k)), -most, most).astype(np.int64)


def draw_rotation(scales: Scales, draws: Draws) -> np.ndarray:
    """Draws the label party's rotation, [d, d] int64.

    The orthogonal factor of a matrix of normal numbers is uniform if the diagonal of the other factor is
    positive (Stewart, SIAM Journal on Numerical Analysis 17, 1980; Mezzadri, Notices of the AMS 54, 2007).
    """
    orthogonal, triangular = np.linalg.qr(_normal(draws, scales.d, scales.d))
    turned = orthogonal * np.where(np.diag(triangular) < 0, -1.0, 1.0)
    return np.rint(turned * 2.0**scales.rotation_fraction_bits).astype(np.int64)


def rotate(kit: Kit, scales: Scales, said: Tensor, draws: Draws) -> tuple[Tensor, np.ndarray]:
    """Turns what the feature party drew, unread; returns the answer and this party's share of W_int.

    Raises:
        RemoteProtocolError: if it is not what is due.
    """
    layout, bound = scales.start, scales.start_bound
    drawn = kit.receive(said, layout, scales.factor_bound)
    turned = drawn.left_multiply(draw_rotation(scales, draws), bound, kit.workers)
    noise = layout.packing.noise(bound, scales.d, scales.k, draws=draws)
    return kit.ship(turned.add_plain(noise, layout.packing.limit)), -noise << scales.start_shift


def read_share(kit: Kit, scales: Scales, said: Tensor) -> np.ndarray:
    """Reads the feature party's share of W_int out of the answer, [d, k].

    Raises:
        RemoteProtocolError: if it is none.
    """
    layout = scales.start
    most = layout.packing.limit
    return kit.read(kit.open(said, layout, most), layout, most).astype(object) << scales.start_shift


def _normal(draws: Draws, *shape: int) -> np.ndarray:
    return np.array([draws.normal() for _ in range(int(np.prod(shape)))]).reshape(shape)
