from __future__ import annotations

import pytest
import torch
from torch import nn

from vfl.learn.presets import ACTIVATIONS, CNN, MLP, PRESETS, Embeddings, Untouched, choose, embedding_width


def kinds(network: nn.Module) -> list[str]:
    return [type(module).__name__ for module in network.modules() if not list(module.children())]


@pytest.mark.parametrize("hidden", [[], [8], [8, 4, 6]])
def test_a_perceptron_has_any_depth(hidden: list[int]) -> None:
    network = MLP(5, 3, hidden=hidden)
    assert network(torch.zeros(2, 5)).shape == (2, 3)
    assert kinds(network).count("Linear") == len(hidden) + 1


def test_a_perceptron_without_hidden_layers_is_one_linear_layer() -> None:
    network = MLP(4, 2, hidden=[], dropout=0.5, batch_norm=True)
    (linear,) = network.layers
    x = torch.randn(3, 4)
    assert torch.equal(network(x), x @ linear.weight.T + linear.bias)


def test_layers_come_in_the_order_linear_norm_activation_dropout() -> None:
    network = MLP(4, 2, hidden=[3], activation="tanh", dropout=0.1, batch_norm=True)
    assert kinds(network) == ["Linear", "BatchNorm1d", "Tanh", "Dropout", "Linear"]


@pytest.mark.parametrize(
    "name", ["ReLU", "relu", "TANH", "gelu", "SiLU", "leakyrelu", "ELU", "sigmoid", "Identity"]
)
def test_an_activation_is_named_in_any_case(name: str) -> None:
    assert ACTIVATIONS[name.lower()].__name__ in kinds(MLP(2, 1, hidden=[2], activation=name))


@pytest.mark.parametrize("hidden", [[], [4]])
def test_a_misspelt_activation_is_answered_with_the_nearest(hidden: list[int]) -> None:
    with pytest.raises(ValueError, match=r"'rleu' is unknown: did you mean 'ReLU'\?"):
        MLP(2, 1, hidden=hidden, activation="rleu")


def test_categorical_columns_pass_through_embedding_tables() -> None:
    network = MLP(2, 3, hidden=[4], embeddings=[(7, 4), (2, 1)])
    assert network.embeddings is not None
    assert [tuple(table.weight.shape) for table in network.embeddings.tables] == [(8, 4), (3, 1)]
    codes = torch.tensor([[0, 0], [7, 2], [1, 1]])
    assert network(torch.zeros(3, 2), codes).shape == (3, 3)
    assert network.embeddings(codes).shape == (3, 5)


def test_a_party_may_have_categorical_columns_only() -> None:
    network = MLP(0, 3, embeddings=[(4, 2)])
    assert network(torch.zeros(5, 0), torch.ones(5, 1, dtype=torch.int64)).shape == (5, 3)


def test_the_unknown_category_has_a_vector_that_learns() -> None:
    table = Embeddings([(3, 2)])
    table(torch.zeros(1, 1, dtype=torch.int64)).sum().backward()
    grad = table.tables[0].weight.grad
    assert grad is not None
    assert grad[0].tolist() == [1.0, 1.0]
    assert not grad[1:].any()


def test_the_unknown_category_begins_at_zero_and_the_others_as_torch_draws_them() -> None:
    sizes = [(3, 2), (0, 1), (5, 4)]
    torch.manual_seed(7)
    drawn = [nn.Embedding(known + 1, dim).weight for known, dim in sizes]
    after = torch.rand(1)
    torch.manual_seed(7)
    weights = [table.get_parameter("weight") for table in Embeddings(sizes).tables]
    assert torch.equal(torch.rand(1), after)
    for weight, wanted in zip(weights, drawn, strict=True):
        assert not weight[0].any()
        assert torch.equal(weight[1:], wanted[1:])
        assert weight.requires_grad


@pytest.mark.parametrize(
    ("known", "width"), [(0, 1), (1, 1), (2, 1), (3, 2), (10, 5), (99, 50), (100_000, 50)]
)
def test_the_default_embedding_is_half_as_wide_as_its_categories_at_most_50(known: int, width: int) -> None:
    assert embedding_width(known) == width


def test_a_network_without_inputs_is_refused() -> None:
    with pytest.raises(ValueError, match="no inputs"):
        MLP(0, 3)


def test_an_image_network_reads_rows_channel_by_channel_row_by_row() -> None:
    network = CNN(2 * 3 * 4, 5, shape=[2, 3, 4], channels=[], hidden=[])
    x = torch.randn(2, 24)
    assert torch.equal(network.convolutions(x.reshape(2, 2, 3, 4)), x)
    assert network(x).shape == (2, 5)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_an_image_network_halves_the_image_after_each_convolution(batch_norm: bool) -> None:
    network = CNN(64, 3, shape=[1, 8, 8], channels=[4, 6], batch_norm=batch_norm, hidden=[7])
    assert network.convolutions(torch.zeros(2, 1, 8, 8)).shape == (2, 6 * 2 * 2)
    assert network(torch.zeros(2, 64)).shape == (2, 3)


def test_an_image_network_takes_categorical_columns_too() -> None:
    network = CNN(16, 3, shape=[1, 4, 4], embeddings=[(5, 2)])
    assert network(torch.zeros(2, 16), torch.ones(2, 1, dtype=torch.int64)).shape == (2, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shape": [1, 8, 9]}, "holds 72 values, a row has 64"),
        ({"shape": [8, 8]}, r"write shape = \[channels, height, width\]"),
        ({"shape": [1, 8, 8], "kernel": 4}, "kernel = 4 is even"),
        ({"shape": [1, 8, 8], "channels": [2] * 4}, r"leaves nothing of \[1, 8, 8\]"),
        ({"shape": [1, 8, 8], "activation": "swish"}, "'swish' is unknown"),
    ],
)
def test_an_image_network_says_what_does_not_fit(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CNN(64, 3, **options)  # type: ignore[arg-type]


def test_no_network_gives_the_columns_as_they_are() -> None:
    x = torch.randn(3, 4)
    assert Untouched(4, 4)(x) is x
    assert not list(Untouched(4, 4).parameters())


def test_no_network_keeps_the_width_and_takes_no_categories() -> None:
    with pytest.raises(ValueError, match="set width = 4"):
        Untouched(4, 6)
    with pytest.raises(ValueError, match="categorical"):
        Untouched(4, 4, embeddings=[(3, 2)])


def test_every_preset_is_reproducible_from_the_seed() -> None:
    options = {"mlp": {}, "cnn": {"shape": [1, 4, 4]}, "none": {}}
    for name, kind in PRESETS.items():
        made = []
        for _ in range(2):
            torch.manual_seed(3)
            made.append(kind(16, 16, **options[name]).state_dict())
        assert all(torch.equal(made[0][key], made[1][key]) for key in made[0])


def test_an_unknown_name_gets_the_nearest_and_all_known_ones() -> None:
    assert choose("adma", ["SGD", "Adam"]) == "did you mean 'Adam'? Choose from Adam, SGD"
    assert choose("zzz", ["SGD", "Adam"]) == "Choose from Adam, SGD"
    assert choose("x", []) == "there is none to choose from"
