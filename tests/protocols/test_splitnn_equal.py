"""The split network is the one-process network, bit for bit, however it is carried out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import casting
import pytest
import torch
from casting import Setup, assert_same, train_joined, train_over_network, train_split
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn


class Product2(nn.Module):
    """Is a user's cut without weights, which reads an embedding twice."""

    def forward(self, embeddings: list[Tensor]) -> Tensor:
        return torch.stack(embeddings).sum(0) * embeddings[0] + embeddings[0].tanh()


class Attention(nn.Module):
    """Is a user's cut with weights and batch statistics of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Linear(4, 1)
        self.norm = nn.BatchNorm1d(4)

    def forward(self, embeddings: list[Tensor]) -> Tensor:
        stacked = torch.stack(embeddings, dim=1)  # [b, k, d]
        weight = torch.softmax(self.query(stacked), dim=1)
        joined: Tensor = self.norm((weight * stacked).sum(1))
        return joined


class Deaf(nn.Module):
    """Is a user's cut that leaves all embeddings but the first out of account."""

    def forward(self, embeddings: list[Tensor]) -> Tensor:
        return embeddings[0]


@pytest.mark.parametrize("cut", ["concat", "sum"])
@pytest.mark.parametrize("own", [True, False], ids=["own-features", "no-own-features"])
@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_k_parties_train_the_one_process_network(k: int, own: bool, cut: str) -> None:
    setup = Setup(k=k, own=own, cut=cut, dropout=0.3)
    assert_same(train_split(setup), train_joined(setup))


CASES: dict[str, dict[str, Any]] = {
    "mean": {"cut": "mean"},
    "max": {"cut": "max"},
    "product": {"cut": "product", "k": 3},
    "user's cut": {"cut": Product2},
    "user's cut with weights": {"cut": Attention, "dropout": 0.2},
    "user's cut that ignores a party": {"cut": Deaf},
    "batch norm": {"batch_norm": True, "dropout": 0.2},
    "categorical": {"categorical": True, "dropout": 0.2},
    "momentum": {"optimizer": {"name": "SGD", "lr": 0.05, "momentum": 0.9}},
    "schedule by epoch": {"schedule": {"name": "StepLR", "step_size": 1, "gamma": 0.5}, "epochs": 3},
    "schedule by step": {"schedule": {"name": "CosineAnnealingLR", "T_max": 6, "every": "step"}},
    "clipped": {"clip_norm": 0.05},
    "multiclass": {"task": "multiclass"},
    "regression": {"task": "regression"},
    "linear bottoms": {"hidden": ()},
    "width 1": {"width": 1},
    # Here a strided gradient, as of a view of the joint one, would be added up in another order.
    "width 1 in large batches": {"width": 1, "hidden": (64,), "batch_size": 256, "n": {"train": 1024}},
    "one hidden neuron": {"width": 5, "hidden": (1,), "batch_size": 4, "k": 1, "task": "multiclass"},
    "wide": {"width": 33, "hidden": (40, 17), "batch_size": 27},
    "bottoms without weights": {"untouched": True, "width": casting.P},
    "one step an epoch": {"batch_size": 27},
    "a row left over": {"batch_size": 13},
    "no validation rows": {"n": {"train": 27, "valid": 0, "test": 9}},
    "no test rows": {"n": {"train": 27, "valid": 9, "test": 0}},
    "no held-out rows": {"n": {"train": 27}},
    "early stopping": {"epochs": 30, "patience": 2, "optimizer": {"name": "SGD", "lr": 2.0}},
    "many batches to predict": {"n": {"train": 30, "valid": 1100, "test": 2049}, "epochs": 1},
}


@pytest.mark.parametrize("changes", CASES.values(), ids=CASES)
def test_it_is_the_one_process_network_with(changes: dict[str, Any]) -> None:
    setup = replace(Setup(), **changes)
    assert_same(train_split(setup), train_joined(setup))


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    k=st.integers(1, 6),
    own=st.booleans(),
    cut=st.sampled_from(["concat", "sum", "mean", "max", "product"]),
    width=st.integers(1, 70),
    hidden=st.lists(st.integers(1, 40), max_size=2),
    dropout=st.sampled_from([0.0, 0.5]),
    batch_size=st.integers(2, 90),
    task=st.sampled_from(["binary", "multiclass", "regression"]),
)
def test_it_is_the_one_process_network_in_any_shape(**shape: Any) -> None:  # noqa: ANN401
    setup = Setup(**shape, n={"train": 90, "valid": 20, "test": 10}, epochs=1)
    assert_same(train_split(setup), train_joined(setup))


@pytest.mark.parametrize("curve", [False, True], ids=["clear", "curve"])
@pytest.mark.parametrize(
    "setup",
    [Setup(k=1, own=False), Setup(k=3, batch_norm=True, cut="sum"), Setup(k=2, ahead=3, width=37)],
    ids=["one party", "three parties", "ahead"],
)
def test_over_zeromq_it_is_what_it_is_in_memory(setup: Setup, curve: bool) -> None:
    assert_same(train_over_network(setup, curve=curve), train_split(setup))
