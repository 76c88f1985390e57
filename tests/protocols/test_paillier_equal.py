"""What is learned under encryption is what is learned without, and that is a plain linear layer's."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any
from unittest import mock

import casting
import numpy as np
import pytest
import torch
from casting import LABEL, assert_same, over_network
from paillier_cast import FEATURE, Company, Setup, cast, play, predict, shares_of, train, trained
from torch import Tensor, nn

from protocols import paillier
from protocols.paillier.notes import draws_of
from protocols.paillier.scales import Scales, scales_of
from protocols.paillier.start import draw_factor, draw_rotation
from vfl.data.batches import Rows
from vfl.data.builtin import builtin_columns, load_builtin
from vfl.data.preparation import Features
from vfl.learn.cut import Joint
from vfl.learn.joined import JoinedNetwork
from vfl.learn.presets import MLP
from vfl.learn.scores import loss_function, score
from vfl.rng import RngStream

UNIT = 2.0**-24
"""Half the distance of 1 to the next float32: the relative error of one rounding."""


def scales_in(setup: Setup, company: Company) -> Scales:
    sizes = company.rows[FEATURE].sizes("train")
    return scales_of(setup.session(FEATURE), max(sizes), setup.epochs * len(sizes))


def initial_weights(setup: Setup, scales: Scales) -> np.ndarray:
    """Returns W_int as it begins: what the one party draws, rotated by what the other does."""
    drawn, rotation = (
        draw(scales, draws_of(setup.session(name)))
        for draw, name in ((draw_factor, FEATURE), (draw_rotation, LABEL))
    )
    weights: np.ndarray = (rotation.astype(object) @ drawn) << scales.start_shift
    return weights


def real(integers: np.ndarray, scales: Scales) -> Tensor:
    return torch.from_numpy(integers.astype(np.float64) * 2.0**-scales.fraction_bits)


CASES: dict[str, dict[str, Any]] = {
    "one output": {"outputs": 1},
    "a label party with columns": {"own": True},
    "its columns added": {"own": True, "cut": "sum"},
    "dropout and batch statistics": {"dropout": 0.3, "batch_norm": True},
    "classes": {"task": "multiclass"},
    "a number, without validation rows": {"task": "regression", "n": {"train": 27, "valid": 0, "test": 9}},
    "rows wider than a plaintext": {"width": 11},
    "several rows a plaintext": {"width": 1, "outputs": 7},
    "a last batch of one row more": {"n": {"train": 33, "valid": 12, "test": 9}},
    "a last batch of two rows": {"n": {"train": 26, "valid": 12, "test": 9}},
    "other bits": {"options": {"value_bits": 12, "gradient_bits": 20, "weight_fraction_bits": 10}},
    "values that are clipped": {"options": {"clip": 0.01, "value_bits": 8, "gradient_clip": 0.05}},
    "early stopping": {"epochs": 6, "patience": 1},
}


@pytest.mark.parametrize("case", CASES)
def test_encrypted_is_plain_bit_for_bit(case: str) -> None:
    found = []
    for encryption in ("paillier", "none"):
        setup = Setup(encryption=encryption, **CASES[case])
        rehearsal, company = play(setup)
        outcome = rehearsal.results[LABEL]
        found.append((trained(company, outcome), predict(company), outcome.notes[1:]))
    (one, predicted, notes), (other, expected, others) = found
    assert_same(one, other)
    assert predicted.tobytes() == expected.tobytes()
    assert notes == others
    assert np.isfinite(predicted).all()


def test_noise_changes_how_weights_are_rounded_and_nothing_else() -> None:
    equal, again, fresh, fresher = (
        train(Setup(noise=noise, encryption="none")) for noise in (b"equal noise", b"equal noise", None, None)
    )
    assert_same(equal, again)
    one, other = (trained.weights[f"{LABEL}'s share"]["limbs"] for trained in (fresh, fresher))
    assert not torch.equal(one, other)


def test_the_shares_sum_to_the_weights_minus_every_gradient_exactly() -> None:
    setup = Setup(encryption="none", n={"train": 27, "valid": 0, "test": 9})
    seen: list[np.ndarray] = []
    brought: list[np.ndarray] = []
    turn = Scales.gradient_integers

    def noting(self: Scales, gradient: np.ndarray) -> tuple[np.ndarray, int]:
        g, n_clipped = turn(self, gradient)
        seen.append(g)
        return g, n_clipped

    with mock.patch.object(Scales, "gradient_integers", noting):
        rehearsal, company = play(setup)
    scales, n = scales_in(setup, company), setup.config.key_bits
    for said in rehearsal.view(LABEL):
        message = said.message
        if isinstance(message, paillier.messages.Activations) and said.phase == "train":
            b = len(seen[len(brought)])
            raw, width = message.rows.numpy().tobytes(), n // 8
            numbers = [int.from_bytes(raw[at : at + width], "big") for at in range(0, len(raw), width)]
            brought.append(scales.rows(b).unpack(numbers, (1 << n) - 1))  # type: ignore[arg-type]
    wanted = initial_weights(setup, scales)
    for h, g in zip(brought, seen, strict=True):
        wanted = wanted - h.astype(object).T @ g.astype(object)
    assert len(seen) == 2 * 4
    assert (shares_of(company) == wanted).all()


@pytest.mark.parametrize("curve", [False, True])
def test_it_runs_over_a_network_as_in_memory(curve: bool) -> None:
    setup = Setup()
    company = cast(setup)
    results = over_network(company.roles(), paillier.MESSAGES, hub=LABEL, curve=curve)
    assert_same(trained(company, results[LABEL]), train(setup))


# --- against one process ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "share"),
    [({}, 0.05), ({"value_bits": 22, "gradient_bits": 20, "weight_fraction_bits": 24}, 0.001)],
    ids=["default bits", "more bits"],
)
def test_a_convex_training_stays_within_its_derived_bound_of_the_one_networks(
    options: dict[str, Any], share: float
) -> None:
    """Plain training is w' = G(w) = w - lr X^T (sigmoid(X w) - y) / b in float64, X [b, p] a batch. Its loss
    is convex with a gradient of Lipschitz constant beta = |X|^2 / 4b (|X| is the largest singular value), so
    where lr <= 2 / beta a step never parts two weights further: |G(v) - G(w)| <= |v - w|.

    Under encryption the step is w' = w - X'^T g, exactly, with X' = X + dX the rounded columns, and
        |dX_ij| <= h = 2^-(f_h + 1);
        g = lr (sigmoid(z) - y + r) / b + c,    |c_i| <= 2^-(f_g + 1), gradients rounded;
        |r_i| <= R = 8 * 2^-24: the float32 sigmoid, difference and quotient, which is checked below;
        |z_i - X_i w| <= E = |X'_i|_1 2^-f_w + h |w|_1 + 2^-f_h + 2^-24 |z_i| (twice that, for the second
            order): the weights' rounding, the columns', the blur of z, and its rounding to float32.
    From the same w the two steps end apart by lr dX^T (sigmoid(X w) - y) / b, of which the last factor's
    parts are below 1, and by lr X'^T (sigmoid(z) - sigmoid(X w) + r) / b and X'^T c; together no more than
        D = lr h sqrt(p) + lr |X'| (E / 4 + R) / sqrt(b) + |X'| sqrt(b) 2^-(f_g + 1),
    and after all steps the weights differ by no more than the sum of the steps' D.
    """
    lr = 0.4
    setup = Setup(
        untouched=True, width=3, outputs=1, trunk=False, epochs=4, batch_size=25,
        n={"train": 250, "valid": 0, "test": 40}, options={"lr": lr} | options,
    )  # fmt: skip
    company = cast(setup)
    scales = scales_in(setup, company)
    gradients: list[np.ndarray] = []
    products: list[np.ndarray] = []
    turn, read = Scales.gradient_integers, Scales.z

    def noting_gradients(self: Scales, gradient: np.ndarray) -> tuple[np.ndarray, int]:
        gradients.append(gradient)
        return turn(self, gradient)

    def noting_products(self: Scales, integers: np.ndarray) -> np.ndarray:
        products.append(read(self, integers))
        return products[-1]

    with (
        mock.patch.object(Scales, "gradient_integers", noting_gradients),
        mock.patch.object(Scales, "z", noting_products),
    ):
        rehearsal, _ = play(setup, company=company)
    assert len(rehearsal.results[LABEL].notes) == 1  # of the key's size, and none of clipping
    ended = real(shares_of(company), scales)[:, 0]
    w = begun = real(initial_weights(setup, scales), scales)[:, 0]
    h, bound, step = 2.0 ** -(scales.activation.fraction_bits + 1), 0.0, 0
    for epoch in range(1, setup.epochs + 1):
        dealt = (company.rows[name].batches("train", epoch) for name in (FEATURE, LABEL))
        for batch, labels in zip(*dealt, strict=True):
            x, b = batch.inputs[0].double(), batch.rows
            assert labels.y is not None
            norm = torch.linalg.matrix_norm(x, 2).item()
            rounded = norm + h * (3 * b) ** 0.5
            assert lr <= 2 / (norm**2 / (4 * b))
            z = torch.from_numpy(products[step])[:, 0].double()
            r = b * torch.from_numpy(gradients[step])[:, 0].double() - (torch.sigmoid(z) - labels.y)
            assert r.abs().max().item() <= 8 * UNIT
            e = (x.abs() + h).sum(1).max().item() * 2.0**-setup.config.weight_fraction_bits
            e += scales.blur * 2.0 ** -(scales.activation.fraction_bits + setup.config.weight_fraction_bits)
            e += h * (w.abs().sum().item() + 3**0.5 * bound) + 2 * UNIT * z.abs().max().item()
            bound += lr * h * 3**0.5 + lr * rounded * (e / 4 + 8 * UNIT) / b**0.5
            bound += rounded * b**0.5 * 2.0 ** -(scales.gradient_fraction_bits + 1)
            w = w - lr * x.T @ (torch.sigmoid(x @ w) - labels.y) / b
            step += 1
    distance, change = (ended - w).norm().item(), (w - begun).norm().item()
    assert step == 40
    assert 0 < distance <= bound
    assert bound < share * change  # so the bound says something


@dataclass
class Plain:
    """Is a split network whose feature party's bottom ends in `nn.Linear`, in one process."""

    company: Company
    layer: nn.Linear
    losses: list[float]
    output: np.ndarray


def train_plain(setup: Setup, company: Company) -> Plain:
    """Trains with the weights that the shares begin with, and plain gradient descent for W."""
    scales = scales_in(setup, company)
    layer = nn.Linear(setup.width, setup.outputs, bias=False)
    layer.weight.data = real(initial_weights(setup, scales), scales).T.float().contiguous()
    learners = {
        name: company.learners[name] for name in (FEATURE, "joint", "own") if name in company.learners
    }
    sgd = torch.optim.SGD(layer.parameters(), setup.config.lr)
    joint = learners["joint"].network
    assert isinstance(joint, Joint)
    bottoms: dict[str, nn.Module] = {FEATURE: nn.Sequential(learners[FEATURE].network, layer)}
    bottoms |= {LABEL: learners["own"].network} if setup.own else {}
    network = JoinedNetwork(
        bottoms, casting.CUTS[str(setup.cut)], joint.trunk, company.streams, trunk_party=LABEL
    )
    losses = []
    for epoch in range(1, setup.epochs + 1):
        network.train()
        total = 0.0
        for batches in casting._together(company, "train", epoch):  # type: ignore[arg-type]
            target = batches[LABEL].y
            assert target is not None
            loss = loss_function(setup.task)(network({n: batches[n].inputs for n in bottoms}), target)
            sgd.zero_grad()
            torch.autograd.backward(loss)
            sgd.step()
            for learner in learners.values():
                learner.step()
            total += loss.item() * batches[LABEL].rows
        losses.append(total / company.rows[LABEL].count("train"))
    output = casting._outputs(network, bottoms, company, "test")  # type: ignore[arg-type]
    return Plain(company, layer, losses, output)


FINE = {"value_bits": 24, "gradient_bits": 24, "weight_fraction_bits": 24, "clip": 64.0}


@pytest.mark.parametrize("own", [False, True], ids=["label party without columns", "with columns"])
def test_a_general_network_comes_out_as_the_one_network_does(own: bool) -> None:
    # Measured, not derived: ReLU and Adam make no promise.
    # Without validation rows the last epoch is kept.
    setup = Setup(own=own, epochs=5, encryption="none", n={"train": 64, "valid": 0, "test": 20})
    found = {}
    for name, options in (("coarse", {}), ("fine", FINE)):
        one = replace(setup, options=options)
        split, plain = train(one), train_plain(one, cast(one))
        found[name] = float(np.abs(split.output - plain.output).max())
        assert np.allclose(split.losses, plain.losses, atol=1e-3 if name == "coarse" else 1e-5)
    assert found["fine"] < 2e-4
    assert found["fine"] < found["coarse"] < 3e-2


def real_data(table: str, target: str, setup: Setup) -> Company:
    """Casts half of a table's columns each, scaled, and a trunk on them."""
    columns = [name for name in builtin_columns(table) if name not in ("id", target)]
    found = load_builtin(table, [*columns, target])
    x = np.stack([found[name].astype(np.float64) for name in columns], axis=1)
    x = (4 * (x - x.mean(0)) / (np.ptp(x, axis=0) + 1e-9)).astype(np.float32)
    classes, coded = np.unique(found[target], return_inverse=True)
    y = torch.from_numpy(coded.astype(np.float32 if setup.task == "binary" else np.int64))
    rng, half = np.random.default_rng(1), x.shape[1] // 2
    order, n = rng.permutation(len(x)), len(x)
    splits = {"train": order[: n * 7 // 10], "test": order[n * 7 // 10 :]}  # so the last epoch is kept
    digests = rng.integers(0, 2**63, n).astype(np.uint64)
    rows = {}
    for name, part in ((FEATURE, x[:, :half]), (LABEL, x[:, half:])):
        labels = y if name == LABEL else None
        rows[name] = Rows(
            digests, splits, features=Features(torch.from_numpy(part), None), y=labels,
            batch_size=setup.batch_size, seed=1,
        )  # fmt: skip
    company = cast(setup)
    with RngStream(1):
        bottom, own = MLP(half, setup.width, [12]), MLP(x.shape[1] - half, setup.outputs, [12])
        n_out = 1 if setup.task == "binary" else len(classes)
        joint = Joint("concat", MLP(2 * setup.outputs, n_out, [12]))
    networks = {FEATURE: bottom, "own": own, "joint": joint}
    company.learners |= {name: casting.learner(setup, network) for name, network in networks.items()}
    company.rows.update(rows)
    return company


@pytest.mark.parametrize(
    ("table", "target", "task", "metric", "least"),
    [
        ("breast_cancer", "diagnosis", "binary", "auc", 0.98),
        ("digits", "digit", "multiclass", "accuracy", 0.85),
    ],
)
def test_real_data_score_what_they_do_in_the_plain_network(
    table: str, target: str, task: str, metric: str, least: float
) -> None:
    setup = Setup(
        own=True, width=8, outputs=8, task=task, epochs=9, batch_size=32, encryption="none",
        optimizer={"name": "SGD", "lr": 0.1},
        options={"lr": 0.1, "clip": 16.0, "gradient_clip": 4.0, "key_bits": 1024},
    )  # fmt: skip
    company = real_data(table, target, setup)
    begun = real_data(table, target, setup)
    plain = train_plain(setup, begun)
    rehearsal, _ = play(setup, company=company)
    truth = begun.rows[LABEL].truth("test")
    outcome = rehearsal.results[LABEL]
    assert len(outcome.notes) == 1  # nothing was clipped
    wanted = score(task, truth, plain.output)[metric]
    assert wanted > least
    assert outcome.test[metric] == pytest.approx(wanted, abs=0.005)
    assert np.allclose([record["loss"] for record in outcome.history], plain.losses, atol=2e-3)
