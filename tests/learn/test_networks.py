from __future__ import annotations

import random
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from vfl.errors import ConfigError
from vfl.learn.networks import build_network, import_object, parameter_count
from vfl.learn.presets import MLP

WHERE = "mean.toml: bottom"

USER_MODULE = """
import torch
from torch import nn
from site_helper import WIDTH

class Net(nn.Module):
    def __init__(self, width, out=WIDTH):
        super().__init__()
        self.linear = nn.Linear(width, out)
        self.calls = 0
    def forward(self, x):
        self.calls += 1
        return self.linear(x)

class Coded(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(4, 2)
    def forward(self, x, codes):
        return x + self.table(codes[:, 0])

def factory(out):
    return nn.Sequential(nn.LazyLinear(out))

def number():
    return 3

class Flat(nn.Module):
    def forward(self, x):
        return x.sum(dim=1)

class Failing(nn.Module):
    def forward(self, x):
        raise RuntimeError("two\\nlines")

CONSTANT = 5
"""


def build(spec: dict[str, Any], inputs: int = 4, output: int = 3, **more: Any) -> nn.Module:  # noqa: ANN401
    return build_network(spec, inputs=inputs, output=output, where=WHERE, **more)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    before = set(sys.modules)
    (tmp_path / "site_net.py").write_text(USER_MODULE)
    (tmp_path / "site_helper.py").write_text("WIDTH = 3\n")
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith("site_"):
            del sys.modules[name]


def test_a_preset_is_built_with_its_options() -> None:
    network = build({"preset": "mlp", "hidden": [8], "activation": "Tanh", "dropout": 0, "batch_norm": True})
    assert parameter_count(network) == (4 * 8 + 8) + 2 * 8 + (8 * 3 + 3)
    assert network.training


def test_frozen_parameters_are_not_counted() -> None:
    network = nn.Linear(2, 2)
    network.bias.requires_grad_(False)
    assert parameter_count(network) == 4


def test_categories_get_embeddings_of_the_default_or_the_given_width() -> None:
    default = build({"preset": "mlp"}, category_sizes=[9, 3])
    same = build({"preset": "mlp", "embedding_dim": 6}, category_sizes=[9, 3])
    each = build({"preset": "mlp", "embedding_dim": [7, 1]}, category_sizes=[9, 3])
    widths = [[table.embedding_dim for table in one.embeddings.tables] for one in (default, same, each)]
    assert widths == [[5, 2], [6, 6], [7, 1]]


def test_an_image_shape_is_the_default_of_the_cnn() -> None:
    given = build({"preset": "cnn", "channels": [2]}, inputs=16, image=(1, 4, 4))
    written = build({"preset": "cnn", "channels": [2], "shape": [1, 2, 8]}, inputs=16, image=(1, 4, 4))
    assert given.shape == (1, 4, 4)
    assert written.shape == (1, 2, 8)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({}, r"write either preset = \"mlp\" or module"),
        ({"preset": "mlp", "module": "a:b"}, "write either"),
        ({"preset": "mpl"}, "preset = 'mpl' is unknown: did you mean 'mlp'?"),
        ({"preset": 3}, "preset = 3 is unknown"),
        ({"preset": "mlp", "hiden": [3]}, "hiden is no option of preset 'mlp': did you mean 'hidden'?"),
        ({"preset": "mlp", "p": 3}, "p is no option"),
        ({"preset": "mlp", "hidden": 3}, "hidden = 3 does not fit"),
        ({"preset": "mlp", "hidden": [3, 0]}, "greater than or equal to 1"),
        ({"preset": "mlp", "hidden": [True]}, "valid integer"),
        ({"preset": "mlp", "dropout": 1.0}, "less than 1"),
        ({"preset": "mlp", "batch_norm": "no"}, "valid boolean"),
        ({"preset": "mlp", "activation": "rleu"}, "did you mean 'ReLU'?"),
        ({"preset": "mlp", "embedding_dim": 3}, "does not fit 0 categorical columns"),
        ({"preset": "cnn"}, "preset 'cnn' needs shape: add it"),
        ({"preset": "cnn", "shape": [1, 3, 3]}, "holds 9 values, a row has 4"),
        ({"preset": "none"}, "set width = 4"),
        ({"module": 3}, "module must be text"),
        ({"module": "a:b", "arg": {}}, "arg is unknown beside module"),
        ({"module": "no_colon"}, "write it as 'package.module:Class'"),
        ({"module": "bad path:X"}, "no import path"),
        ({"module": "not_installed_anywhere:Net"}, "No module named 'not_installed_anywhere'"),
        ({"module": "torch.nn:Liner"}, "has no 'Liner': did you mean 'Linear'?"),
        ({"module": "torch.nn:Linear", "args": {"in_feature": 3}}, "unexpected keyword argument"),
        ({"module": "math:pi"}, "is float"),
    ],
)
def test_what_cannot_be_built_is_one_line_with_the_place_and_the_remedy(
    spec: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        build(spec)
    text = str(caught.value)
    assert text.startswith(f"{WHERE}: ")
    assert message.replace("\\", "") in text
    assert "\n" not in text


@pytest.mark.parametrize("dim", [0, True, [3], [3, 3, 3], [3, "x"], "wide"])
def test_an_embedding_width_that_does_not_fit_the_columns_is_refused(dim: object) -> None:
    with pytest.raises(ConfigError, match="does not fit 2 categorical columns"):
        build({"preset": "mlp", "embedding_dim": dim}, category_sizes=[9, 3])


def test_a_users_class_gets_its_arguments_as_written(folder: Path) -> None:
    network = build({"module": "site_net:Net", "args": {"width": 4}}, folder=folder)
    assert type(network).__name__ == "Net"
    assert str(folder) not in sys.path


def test_a_users_module_takes_codes_where_there_are_categories(folder: Path) -> None:
    build({"module": "site_net:Coded"}, inputs=2, output=2, category_sizes=[3], folder=folder)
    with pytest.raises(
        ConfigError, match=r"fails on inputs of shape \[2, 2\] \(TypeError: .* take 2 columns"
    ):
        build({"module": "site_net:Coded"}, inputs=2, output=2, folder=folder)


def test_lazy_layers_draw_their_weights_from_the_callers_stream(folder: Path) -> None:
    made = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # older versions of torch call lazy modules new
            network = build({"module": "site_net:factory", "args": {"out": 3}}, folder=folder)
        made.append(network[0].weight.detach())  # type: ignore[index]
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"module": "site_net:Net", "args": {"width": 4, "out": 12}}, "gives width 12, the job says 3"),
        (
            {"module": "site_net:Net", "args": {"width": 9}},
            r"fails on inputs of shape \[2, 4\] \(RuntimeError",
        ),
        ({"module": "site_net:Net"}, r"site_net:Net\(\) fails \(TypeError"),
        ({"module": "site_net:Net", "args": [3]}, "args a table"),
        ({"module": "site_net:Net.missing"}, "has no 'missing'"),
        ({"module": "site_net:number"}, "gives int, no torch.nn.Module"),
        ({"module": "site_net:CONSTANT"}, "is int: name a module class"),
        ({"module": "site_net:Flat"}, r"turns 2 rows into shape \[2\], not \[2, 3\]"),
        ({"module": "site_net:Failing"}, "two lines"),
        ({"module": "site_nett:Net"}, "No module named 'site_nett'"),
    ],
)
def test_a_users_module_that_does_not_fit_is_one_line(
    folder: Path, spec: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        build(spec, folder=folder)
    assert "\n" not in str(caught.value)


def test_a_users_module_that_fails_to_import_is_one_line(folder: Path) -> None:
    (folder / "site_broken.py").write_text("1/0\n")
    with pytest.raises(ConfigError, match=r"cannot be imported \(ZeroDivisionError: division by zero"):
        import_object("site_broken:Net", WHERE, folder)
    (folder / "site_syntax.py").write_text("def\n")
    with pytest.raises(ConfigError, match="SyntaxError"):
        import_object("site_syntax:Net", WHERE, folder)


def test_a_network_must_give_floats(folder: Path) -> None:
    (folder / "site_ints.py").write_text(
        "from torch import nn\nclass N(nn.Module):\n  def forward(s, x): return x.long()\n"
    )
    with pytest.raises(ConfigError, match=r"gives torch\.int64: it must give one tensor of floats"):
        build({"module": "site_ints:N"}, folder=folder)


def test_two_sites_with_a_file_of_the_same_name_each_get_their_own(tmp_path: Path) -> None:
    for site in ("bank", "shop"):
        (tmp_path / site).mkdir()
        (tmp_path / site / "site_same.py").write_text("from site_owner import OWNER\n")
        (tmp_path / site / "site_owner.py").write_text(f"OWNER = {site!r}\n")
    owners = [import_object("site_same:OWNER", WHERE, tmp_path / site) for site in ("bank", "shop", "bank")]
    assert owners == ["bank", "shop", "bank"]
    with pytest.raises(ConfigError, match="No module named 'site_same'"):
        import_object("site_same:OWNER", WHERE, tmp_path)


def test_one_sites_module_is_imported_once(folder: Path) -> None:
    assert import_object("site_net:Net", WHERE, folder) is import_object("site_net:Net", WHERE, folder)


@pytest.mark.parametrize("name", ["torch", "random"])
def test_a_file_that_hides_an_installed_module_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / f"{name}.py").write_text("class Net: pass\n")
    with pytest.raises(ConfigError, match=f"{name} in .* hides an installed module: rename it"):
        import_object(f"{name}:Net", WHERE, tmp_path)
    assert import_object("torch.nn:Linear", WHERE) is nn.Linear


def test_trying_a_network_out_leaves_it_and_all_random_states_as_they_were(folder: Path) -> None:
    spec = {"preset": "mlp", "hidden": [5], "dropout": 0.5, "batch_norm": True}
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    built = build(spec, category_sizes=[3])
    drawn = [torch.rand(1).item(), np.random.rand(), random.random()]
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    plain = MLP(4, 3, hidden=[5], dropout=0.5, batch_norm=True, embeddings=[(3, 2)])
    assert [torch.rand(1).item(), np.random.rand(), random.random()] == drawn
    assert all(
        torch.equal(a, b)
        for a, b in zip(built.state_dict().values(), plain.state_dict().values(), strict=True)
    )
    assert all(module.training for module in built.modules())
