"""What is summed under masks is what is summed without, and that is the one network to a rounding."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import casting
import numpy as np
import pytest
import torch
from casting import LABEL, Trained, assert_same, over_network, train_joined
from sfa_cast import Company, Setup, cast, play, predict, seen, train, trained
from torch import Tensor, nn

from protocols import sfa

UNIT = 2.0**-24
"""Half the distance of 1 to the next float32: the relative error of one rounding."""

topologies = pytest.mark.parametrize(
    "topology",
    [{}, {"own": True}, {"coordinator": True}, {"coordinator": True, "own": True}],
    ids=["label sums", "label sums and has columns", "coordinator", "coordinator, label has columns"],
)


def assert_masks_change_nothing(setup: Setup) -> None:
    trained_parties = []
    for masks in (True, False):
        rehearsal, company = play(replace(setup, masks=masks))
        trained_parties.append((trained(company, rehearsal.results[LABEL]), predict(company)))
    (masked, predicted), (bare, expected) = trained_parties
    assert_same(masked, bare)
    assert predicted.tobytes() == expected.tobytes()
    assert np.isfinite(predicted).all()


@pytest.mark.parametrize("coordinator", [False, True], ids=["label sums", "coordinator"])
@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("k", [2, 3, 5, 8])
def test_masked_is_unmasked_bit_for_bit(k: int, bits: int, coordinator: bool) -> None:
    assert_masks_change_nothing(Setup(k=k, ring_bits=bits, coordinator=coordinator, own=k % 2 == 0))


CASES: dict[str, dict[str, Any]] = {
    "two batches ahead": {"ahead": 2},
    "dropout and batch statistics": {"hidden": (5,), "dropout": 0.3, "batch_norm": True},
    "deep bottoms": {"hidden": (7, 5)},
    "categorical columns": {"categorical": True},
    "categorical columns two batches ahead": {
        "categorical": True,
        "hidden": (5,),
        "ahead": 2,
        "dropout": 0.2,
    },
    "values that are clipped": {"clip": 0.5},
    "few fraction bits": {"fraction_bits": 3},
    "several classes": {"task": "multiclass"},
    "regression": {"task": "regression", "optimizer": {"name": "SGD", "lr": 0.01, "momentum": 0.9}},
    "a row left over": {"batch_size": 13},
    "no held-out rows": {"n": {"train": 27}},
    "early stopping": {"epochs": 30, "patience": 2, "optimizer": {"name": "SGD", "lr": 2.0}},
    "no pinned keys": {"identities": False},
    "many batches to predict": {"n": {"train": 30, "valid": 1100, "test": 2049}, "epochs": 1},
}


@pytest.mark.parametrize(
    "topology", [{"own": True}, {"coordinator": True, "own": True}], ids=["label", "hub"]
)
@pytest.mark.parametrize("changes", CASES.values(), ids=CASES)
def test_masked_is_unmasked_with(changes: dict[str, Any], topology: dict[str, Any]) -> None:
    assert_masks_change_nothing(replace(Setup(k=3, **topology), **changes))


def test_what_is_clipped_is_counted_and_told() -> None:
    rehearsal, company = play(Setup(k=2, coordinator=True, own=True, clip=0.5))
    notes = rehearsal.results[LABEL].notes
    for name in ("party0", "party1", LABEL):
        assert any(f"{name} clipped" in note and "±0.5" in note for note in notes)
        assert any("clipped at the sum" in warning for warning in company.journals[name].warnings)
    assert not play(Setup(k=2, coordinator=True))[0].results[LABEL].notes


@pytest.mark.parametrize(
    "setup",
    [Setup(k=3, own=True, ahead=2, categorical=True), Setup(k=2, own=True, coordinator=True, ring_bits=64)],
    ids=["label sums", "coordinator"],
)
def test_over_zeromq_it_is_what_it_is_in_memory(setup: Setup) -> None:
    company = cast(setup)
    results = over_network(company.roles(), sfa.MESSAGES, hub=setup.aggregator, curve=True)
    assert_same(trained(company, results[LABEL]), train(setup))


# --- against the one network on all columns ---------------------------------------------------------


@topologies
@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("hidden", [(), (5,)], ids=["first layer", "after bottoms"])
def test_each_sum_is_within_its_rounding_of_what_was_summed(
    hidden: tuple[int, ...], bits: int, topology: dict[str, Any]
) -> None:
    """Each of k summands is rounded to the nearest multiple of 2^-f, which errs by 2^-(f+1) at most, and
    their sum in the ring is exact: |s - sum of h| <= k 2^-(f+1). Reading s as float32 rounds once, which
    errs by 2^-24 |s| at most, and |s| <= |sum of h| + k 2^-(f+1). The sum here is of float64, k of them:
    it errs by k 2^-53 sum of |h|.
    """
    setup = Setup(k=3, hidden=hidden, ring_bits=bits, epochs=3, **topology)
    company, ring = cast(setup), setup.ring()
    with seen(company) as found:
        play(setup, company=company)
    summed = found.pop("trunk" if setup.coordinator else "joint")
    found.pop("joint", None)
    k = len(found)
    assert k == 3 + setup.own
    assert len(summed) == 3 * (4 + 1) + 1  # batches of 27 training rows, validation, test
    worst = 0.0
    for z, *hs in zip(summed, *found.values(), strict=True):
        total = torch.stack(hs).double().sum(0)
        spread = torch.stack(hs).double().abs().sum(0)
        rounded = ring.error_bound(k)
        bound = rounded + UNIT * (total.abs() + rounded) + k * 2.0**-53 * spread
        share = ((z.double() - total).abs() / bound).max().item()
        assert share <= 1
        worst = max(worst, share)
    assert worst > 0.3  # so the bound says something


class Doubled(nn.Module):
    """Is a linear bottom that computes in float64, so that little but the sum itself is rounded."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight.double()), nn.Parameter(bias.double())

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x.double(), self.weight, self.bias)


def convex(setup: Setup) -> Company:
    """Casts a logistic regression: linear bottoms, whose sum is the logit."""
    company = cast(setup)
    for name in [*setup.features, *(["own"] if setup.own else [])]:
        linear = company.learners[name].network.get_submodule("layers").get_submodule("0")
        network = Doubled(linear.get_parameter("weight").detach(), linear.get_parameter("bias").detach())
        company.learners[name] = casting.learner(setup, network)
    return company


def stacked(weights: dict[str, dict[str, Tensor]], names: list[str]) -> Tensor:
    return torch.cat([torch.cat([weights[name]["weight"][0], weights[name]["bias"]]) for name in names])


@pytest.mark.parametrize("fraction_bits", [None, 16])
@pytest.mark.parametrize("coordinator", [False, True], ids=["label sums", "coordinator"])
def test_a_convex_training_stays_within_its_derived_bound_of_the_one_networks(
    coordinator: bool, fraction_bits: int | None
) -> None:
    """Plain training is w' = G(w) = w - lr X^T (sigmoid(X w) - y) / b in float64, X [b, p] a batch of all
    parties' columns with a column of ones each. Its loss is convex with a gradient of Lipschitz constant
    beta = |X|^2 / 4b (|X| is the largest singular value), so where lr <= 2 / beta a step never parts two
    weights further: |G(v) - G(w)| <= |v - w|.

    Aggregated, the step is w' = w - lr X^T g with b g = sigmoid(X w + e) - y + r. Here
        |e_i| <= E = k 2^-(f+1) + 2^-24 (|z| + sum of |h|): the sum's rounding, z's to float32, and each h's,
            which `embed` turns from float64 to float32 (twice that covers what is of second order);
        |r_i| <= R = 8 * 2^-24: the float32 sigmoid, difference and quotient of numbers no larger than 1,
            which is checked below on every gradient that was said.
    The sigmoid's Lipschitz constant is 1/4, so from the same w the two steps end no further apart than
        D = lr |X| sqrt(b) (E / 4 + R) / b,
    and after all steps the weights differ by no more than the sum of the steps' D.
    """
    lr = 0.4
    setup = Setup(
        k=3, own=True, coordinator=coordinator, width=1, trunk=False, fraction_bits=fraction_bits,
        optimizer={"name": "SGD", "lr": lr}, epochs=4, batch_size=25,
        n={"train": 250, "valid": 0, "test": 40},
    )  # fmt: skip
    company = convex(setup)
    names = [*setup.features, "own"]
    begun = stacked(company.weights(), names)
    with seen(company) as found:
        rehearsal, _ = play(setup, company=company)
    ended = stacked(company.weights(), names)

    summed = found["trunk" if coordinator else "joint"]
    grads = [
        said.message.grad
        for said in rehearsal.view("party0")
        if isinstance(said.message, sfa.messages.SumGrad)
    ]
    ring, w, bound, step = setup.ring(), begun.clone(), 0.0, 0
    for epoch in range(1, setup.epochs + 1):
        dealt = [company.rows[LABEL if name == "own" else name].batches("train", epoch) for name in names]
        for batches in zip(*dealt, strict=True):
            columns = [torch.cat([batch.inputs[0], torch.ones(batch.rows, 1)], dim=1) for batch in batches]
            x, y, b = torch.cat(columns, dim=1).double(), batches[-1].y, batches[0].rows
            assert y is not None
            norm = torch.linalg.matrix_norm(x, 2).item()
            assert lr <= 2 / (norm**2 / (4 * b))
            z = summed[step][:, 0].double()
            r = (b * grads[step][:, 0].double() - (torch.sigmoid(z) - y)).abs().max().item()
            assert r <= 8 * UNIT
            spread = sum(found[name][step].abs().max().item() for name in names)
            e = ring.error_bound(len(names)) + 2 * UNIT * (z.abs().max().item() + spread)
            bound += lr * norm * b**0.5 * (e / 4 + 8 * UNIT) / b
            w -= lr * x.T @ (torch.sigmoid(x @ w) - y) / b
            step += 1
    distance, change = (ended - w).norm().item(), (w - begun).norm().item()
    assert step == 40
    assert 0 < distance <= bound
    assert bound < 1e-3 * change  # so the bound says something


def difference(one: Trained, other: Trained) -> float:
    return float(np.abs(one.output - other.output).max())


@topologies
@pytest.mark.parametrize("hidden", [(), (5,)], ids=["first layer", "after bottoms"])
def test_a_general_network_comes_out_as_the_one_network_does(
    hidden: tuple[int, ...], topology: dict[str, Any]
) -> None:
    # Measured, not derived: ReLU and Adam make no promise. With 17 fraction bits outputs differ by 4e-6 at
    # the most here; with 49, by 9e-8, they do as float32 sums in another order would.
    setup = Setup(k=3, hidden=hidden, clip=4096.0, epochs=5, **topology)
    joined = train_joined(setup)
    coarse, fine = (train(replace(setup, ring_bits=bits)) for bits in (32, 64))
    assert difference(fine, joined) < 1e-6
    assert difference(fine, joined) < difference(coarse, joined) < 1e-4
    assert np.allclose(fine.losses, joined.losses, atol=1e-6)
    assert coarse.best_epoch == fine.best_epoch == joined.best_epoch


@pytest.mark.parametrize("k", [2, 5])
def test_unmasked_it_is_the_split_network_with_the_cut_sum_to_a_rounding(k: int) -> None:
    setup = Setup(k=k, own=True, ring_bits=64, masks=False, epochs=3)
    summed, split = train(setup), casting.train_split(setup)
    assert difference(summed, split) < 1e-5
    assert np.allclose(summed.losses, split.losses, atol=1e-6)
    assert summed.weights.keys() == split.weights.keys()
