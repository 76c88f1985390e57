"""Networks that a site names instead of writing: a perceptron, a small CNN, or no network at all.

Each takes a party's numeric columns `x` [b, p] and, if it has categorical ones, their `codes`
[b, q], and gives [b, out]. The types in a preset's signature are what its options are checked by.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Sequence
from typing import Annotated, Final

import torch
from pydantic import Field
from torch import Tensor, nn

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, lt=1)]

#: The activations that an option may name, in any case.
ACTIVATIONS: Final[dict[str, type[nn.Module]]] = {
    kind.__name__.lower(): kind
    for kind in (nn.ReLU, nn.Tanh, nn.GELU, nn.SiLU, nn.LeakyReLU, nn.ELU, nn.Sigmoid, nn.Identity)
}


def choose(value: str, known: Iterable[str]) -> str:
    """Ends an error about an unknown name: the nearest known one, and all of them."""
    names = sorted(known)
    near = {name.lower(): name for name in names}
    hits = difflib.get_close_matches(value.lower(), near, n=1)
    guess = f"did you mean {near[hits[0]]!r}? " if hits else ""
    return f"{guess}Choose from {', '.join(names)}" if names else "there is none to choose from"


def embedding_width(n_categories: int) -> int:
    """Gives the default width of a column's embedding: half its categories, rounded up, from 1 to 50."""
    return min(50, max(1, (n_categories + 1) // 2))


def activation_module(name: str) -> nn.Module:
    """Makes an activation from its name in any case.

    Raises:
        ValueError: No activation has this name.
    """
    kind = ACTIVATIONS.get(name.lower())
    if kind is None:
        known = [one.__name__ for one in ACTIVATIONS.values()]
        raise ValueError(f"activation = {name!r} is unknown: {choose(name, known)}")
    return kind()


def dense(
    width: int, out: int, hidden: Sequence[int], activation: str, dropout: float, batch_norm: bool
) -> nn.Sequential:
    """Stacks linear layers: width -> hidden… -> out; the last one has nothing behind it.

    Raises:
        ValueError: There is no input, or no activation of this name.
    """
    if width < 1:
        raise ValueError("the network has no inputs: give it at least one column")
    activation_module(activation)  # a misspelt name is an error with no hidden layer, too
    layers: list[nn.Module] = []
    for size in hidden:
        layers.append(nn.Linear(width, size))
        if batch_norm:
            layers.append(nn.BatchNorm1d(size))
        layers.append(activation_module(activation))
        if dropout:
            layers.append(nn.Dropout(dropout))
        width = size
    return nn.Sequential(*layers, nn.Linear(width, out))


class Embeddings(nn.Module):
    """Turns the codes of q categorical columns into their learned vectors, side by side.

    Code 0 stands for a category that the training rows do not have; it gets a vector of its own. That
    begins at zero: where no training row has code 0 it stays there and says nothing, where a random one
    would add noise to every prediction on a new category.

    Args:
        tables: For each column its number of known categories (codes 1 to that number) and width.
    """

    def __init__(self, tables: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(known + 1, dim) for known, dim in tables)
        with torch.no_grad():  # after all draws, so that they are what they would be without this
            for table in self.tables:
                table.get_parameter("weight")[0] = 0.0
        self.width = sum(dim for _, dim in tables)

    def forward(self, codes: Tensor) -> Tensor:
        """Looks the codes up: [b, q] int64 -> [b, width]."""
        columns = [table(codes[:, column]) for column, table in enumerate(self.tables)]
        return torch.cat(columns, dim=1)


class MLP(nn.Module):
    """Is a multi-layer perceptron of any depth; without hidden layers it is one linear layer.

    Args:
        p: Numeric columns; 0 where there are categorical ones only.
        out: Width of what it gives.
        hidden: Widths of the hidden layers.
        activation: A name from `ACTIVATIONS`.
        dropout: The share of each hidden layer that is dropped in training.
        batch_norm: Whether each hidden layer is normalised over the batch.
        activate_input: Whether the activation comes first, for a network behind a bare cut.
        embeddings: For each categorical column its number of known categories and its width.

    Raises:
        ValueError: There is no input at all, or no activation of this name.
    """

    def __init__(
        self,
        p: int,
        out: int,
        hidden: list[Count] = [64],  # noqa: B006 - read only, and a list is what TOML gives
        activation: str = "relu",
        dropout: Share = 0.0,
        batch_norm: bool = False,
        activate_input: bool = False,
        embeddings: Sequence[tuple[int, int]] = (),
    ) -> None:
        super().__init__()
        self.embeddings = Embeddings(embeddings) if embeddings else None
        self.first = activation_module(activation) if activate_input else None
        width = p + (self.embeddings.width if self.embeddings else 0)
        self.layers = dense(width, out, hidden, activation, dropout, batch_norm)

    def forward(self, x: Tensor, codes: Tensor | None = None) -> Tensor:
        """Maps x [b, p] and codes [b, q] to [b, out]."""
        if self.embeddings is not None and codes is not None:
            x = torch.cat([x, self.embeddings(codes)], dim=1)  # [b, p + embedding widths]
        result: Tensor = self.layers(x if self.first is None else self.first(x))
        return result


class CNN(nn.Module):
    """Is a small convolutional network for rows that are images, flattened row by row.

    Args:
        p: Numeric columns: channels × height × width.
        out: Width of what it gives.
        shape: Channels, height and width of one row.
        channels: Output channels of each convolution.
        kernel: Height and width of each kernel; odd, so that the size is kept.
        pool: Each convolution is followed by a max-pool of this size; 1 for none.
        hidden: Widths of the dense layers behind the convolutions.
        activation: A name from `ACTIVATIONS`.
        dropout: The share of each dense hidden layer that is dropped in training.
        batch_norm: Whether each convolution and hidden layer is normalised over the batch.
        embeddings: As for `MLP`; they join behind the convolutions.

    Raises:
        ValueError: `p` is not the product of `shape`, or the image is pooled away to nothing.
    """

    def __init__(
        self,
        p: int,
        out: int,
        shape: list[Count],
        channels: list[Count] = [16, 32],  # noqa: B006
        kernel: Count = 3,
        pool: Count = 2,
        hidden: list[Count] = [64],  # noqa: B006
        activation: str = "relu",
        dropout: Share = 0.0,
        batch_norm: bool = False,
        embeddings: Sequence[tuple[int, int]] = (),
    ) -> None:
        super().__init__()
        if len(shape) != 3:
            raise ValueError(f"shape = {shape} is not an image: write shape = [channels, height, width]")
        if math.prod(shape) != p:
            raise ValueError(
                f"shape = {shape} holds {math.prod(shape)} values, a row has {p}: make them equal"
            )
        if kernel % 2 == 0:
            raise ValueError(f"kernel = {kernel} is even: use an odd one, such as 3")
        self.shape = tuple(shape)
        maps, height, width = shape
        layers: list[nn.Module] = []
        for count in channels:
            layers.append(nn.Conv2d(maps, count, kernel, padding=kernel // 2))
            if batch_norm:
                layers.append(nn.BatchNorm2d(count))
            layers += [activation_module(activation), nn.MaxPool2d(pool)]
            maps, height, width = count, height // pool, width // pool
        if not height or not width:
            raise ValueError(
                f"pool = {pool} after {len(channels)} convolutions leaves nothing of {shape}: use less"
            )
        self.convolutions = nn.Sequential(*layers, nn.Flatten())
        self.embeddings = Embeddings(embeddings) if embeddings else None
        flat = maps * height * width + (self.embeddings.width if self.embeddings else 0)
        self.layers = dense(flat, out, hidden, activation, dropout, batch_norm)

    def forward(self, x: Tensor, codes: Tensor | None = None) -> Tensor:
        """Maps x [b, p] and codes [b, q] to [b, out]."""
        x = self.convolutions(x.reshape(-1, *self.shape))  # [b, channels × height × width]
        if self.embeddings is not None and codes is not None:
            x = torch.cat([x, self.embeddings(codes)], dim=1)
        result: Tensor = self.layers(x)
        return result


class Untouched(nn.Module):
    """Is no network: the numeric columns are the embedding, as they are.

    Raises:
        ValueError: `out` is not `p`, or there are categorical columns, whose codes mean nothing.
    """

    def __init__(self, p: int, out: int, embeddings: Sequence[tuple[int, int]] = ()) -> None:
        super().__init__()
        if embeddings:
            raise ValueError('preset = "none" cannot take categorical columns: use preset = "mlp"')
        if p != out:
            raise ValueError(
                f'preset = "none" gives its {p} columns as they are, the job says {out}: set width = {p}'
            )

    def forward(self, x: Tensor, codes: Tensor | None = None) -> Tensor:
        """Gives x [b, p] back."""
        return x


#: The presets by the name that a site writes.
PRESETS: Final[dict[str, type[nn.Module]]] = {"mlp": MLP, "cnn": CNN, "none": Untouched}
