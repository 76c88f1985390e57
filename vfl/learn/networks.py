"""Builds a network from a site's table: a preset with its options, or the user's own module."""

from __future__ import annotations

import importlib
import importlib.machinery
import inspect
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, get_type_hints

import pydantic
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from vfl.errors import ConfigError
from vfl.learn.presets import CNN, PRESETS, choose, embedding_width
from vfl.rng import RngStream

# What build_network fills in itself; everything else in a preset's signature is an option.
_GIVEN = ("self", "p", "out", "embeddings")

# On a module that came from a site's folder: which one.
_MARK = "__vfl_site_folder__"


def one_line(error: BaseException) -> str:
    """Says what another library raised in one line, with the error's type."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def parameter_count(module: nn.Module) -> int:
    """Counts the numbers that training changes."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


def import_object(path: str, where: str, folder: Path | None = None) -> object:
    """Imports `package.module:Name`, from the site's folder first and from what is installed then.

    The folder is importable only while the user's module is being imported; it does not stay on
    `sys.path`. A module from another folder that goes by the same name gives way.

    Args:
        path: As the user wrote it.
        where: Names the document and the key in an error.
        folder: The folder of the site's file.

    Raises:
        ConfigError: The path is malformed, the import fails, or the module has no such name.
    """
    module_name, colon, name = path.partition(":")
    if not colon or not all(part.isidentifier() for part in (*module_name.split("."), *name.split("."))):
        raise ConfigError(f"{where}: module = {path!r} is no import path: write it as 'package.module:Class'")
    with _importable(folder, module_name.partition(".")[0], where, path):
        try:
            found: object = importlib.import_module(module_name)
        except Exception as error:  # the user's own code runs here, and may raise anything
            raise ConfigError(
                f"{where}: module = {path!r} cannot be imported ({one_line(error)}): "
                f"correct the path, or install what it needs"
            ) from error
    for part in name.split("."):
        if not hasattr(found, part):
            known = [public for public in vars(found) if not public.startswith("_")]
            raise ConfigError(f"{where}: module = {path!r} has no {part!r}: {choose(part, known)}")
        found = getattr(found, part)
    return found


def build_network(
    spec: Mapping[str, Any],
    *,
    inputs: int,
    output: int,
    category_sizes: Sequence[int] = (),
    image: Sequence[int] | None = None,
    where: str,
    folder: Path | None = None,
) -> nn.Module:
    """Builds the network that a site describes, and tries it on two rows of zeros.

    Args:
        spec: `{"preset": "mlp", …options}` or `{"module": "package.module:Class", "args": {…}}`. The
            option `embedding_dim` (one width, or one a column) overrides the default widths.
            A user's module is called as `forward(x)`, or `forward(x, codes)` with categorical columns.
        inputs: p, the numeric columns, or the width of the cut for a trunk.
        output: The width that the job says.
        category_sizes: For each categorical column its number of known categories.
        image: The rows' channels, height and width; the default of the CNN's `shape`.
        where: Names the document and the key in an error, such as "mean.toml: bottom".
        folder: The folder of the site's file, for the user's own module.

    Raises:
        ConfigError: Anything about the spec that cannot be used, or a network of another width.
    """
    if ("preset" in spec) == ("module" in spec):
        raise ConfigError(
            f'{where}: has {sorted(spec)}: write either preset = "mlp" or module = "package.module:Class"'
        )
    if "module" in spec:
        network = _build_module(spec, where, folder)
    else:
        network = _build_preset(spec, inputs, output, category_sizes, image, where)
    _try_out(network, inputs, output, len(category_sizes), where)
    return network


def _build_module(spec: Mapping[str, Any], where: str, folder: Path | None) -> nn.Module:
    path, args = spec["module"], spec.get("args", {})
    for key in spec:
        if key not in ("module", "args"):
            raise ConfigError(f"{where}: {key} is unknown beside module: put what the class takes under args")
    if not isinstance(path, str) or not isinstance(args, Mapping):
        raise ConfigError(
            f'{where}: module must be text and args a table: write module = "package.module:Class"'
        )
    make = import_object(path, where, folder)
    if not callable(make):
        raise ConfigError(
            f"{where}: module = {path!r} is {type(make).__name__}: name a module class or a factory"
        )
    try:
        network = make(**args)
    except Exception as error:  # the user's own code
        raise ConfigError(
            f"{where}: {path}({_written(args)}) fails ({one_line(error)}): correct args"
        ) from error
    if not isinstance(network, nn.Module):
        kind = type(network).__name__
        raise ConfigError(
            f"{where}: {path} gives {kind}, no torch.nn.Module: name a module class or a factory of one"
        )
    return network


def _build_preset(
    spec: Mapping[str, Any],
    inputs: int,
    output: int,
    category_sizes: Sequence[int],
    image: Sequence[int] | None,
    where: str,
) -> nn.Module:
    name = spec["preset"]
    if not isinstance(name, str) or name not in PRESETS:
        raise ConfigError(f"{where}: preset = {name!r} is unknown: {choose(str(name), PRESETS)}")
    options = {key: value for key, value in spec.items() if key not in ("preset", "embedding_dim")}
    dims = _embedding_dims(spec.get("embedding_dim"), category_sizes, where)
    preset = PRESETS[name]
    if preset is CNN and image is not None:
        options.setdefault("shape", list(image))
    _check_options(preset, name, options, where)
    embeddings = list(zip(category_sizes, dims, strict=True))
    try:
        return preset(p=inputs, out=output, embeddings=embeddings, **options)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from error


def _embedding_dims(option: object, category_sizes: Sequence[int], where: str) -> list[int]:
    if option is None:
        return [embedding_width(size) for size in category_sizes]
    dims: list[Any] = list(option) if isinstance(option, list) else [option] * len(category_sizes)
    whole = all(type(dim) is int and dim >= 1 for dim in dims)
    if not category_sizes or not whole or len(dims) != len(category_sizes):
        raise ConfigError(
            f"{where}: embedding_dim = {option!r} does not fit {len(category_sizes)} categorical columns: "
            f"write one width, or a list of one width a column"
        )
    return dims


def _check_options(preset: type[nn.Module], name: str, options: Mapping[str, Any], where: str) -> None:
    """Checks the options by the preset's own signature: names, types and bounds."""
    signature = {k: v for k, v in inspect.signature(preset).parameters.items() if k not in _GIVEN}
    hints = get_type_hints(preset.__init__, include_extras=True)
    known = [*signature, "embedding_dim"]
    for key, value in options.items():
        if key not in signature:
            raise ConfigError(f"{where}: {key} is no option of preset {name!r}: {choose(key, known)}")
        try:
            pydantic.TypeAdapter(hints[key]).validate_python(value, strict=True)
        except pydantic.ValidationError as error:
            why = error.errors()[0]["msg"]
            raise ConfigError(f"{where}: {key} = {value!r} does not fit preset {name!r}: {why}") from error
    for key, parameter in signature.items():
        if parameter.default is parameter.empty and key not in options:
            raise ConfigError(f"{where}: preset {name!r} needs {key}: add it")


def _try_out(network: nn.Module, inputs: int, output: int, q: int, where: str) -> None:
    """Lets two rows of zeros through, leaving the network and all random states as they were."""
    modes = [(module, module.training) for module in network.modules()]
    x = torch.zeros(2, inputs)  # [b, p]
    given: tuple[Tensor, ...] = (x, torch.zeros(2, q, dtype=torch.int64)) if q else (x,)
    # Lazy layers draw their weights here, which is part of building: from the caller's stream.
    lazy = any(is_lazy(parameter) for parameter in network.parameters())
    with nullcontext() if lazy else RngStream(0), torch.no_grad():
        try:
            result = network.eval()(*given)
        except Exception as error:  # the user's own code
            shapes = " and ".join(str(list(tensor.shape)) for tensor in given)
            raise ConfigError(
                f"{where}: the network fails on inputs of shape {shapes} ({one_line(error)}): "
                f"it must take {inputs} columns{' and the codes of ' + str(q) if q else ''}"
            ) from error
        finally:
            for module, training in modes:
                module.training = training
    _check_output(result, output, where)


def _check_output(result: object, output: int, where: str) -> None:
    if not isinstance(result, Tensor) or not result.is_floating_point():
        kind = result.dtype if isinstance(result, Tensor) else type(result).__name__
        raise ConfigError(f"{where}: the network gives {kind}: it must give one tensor of floats")
    if result.dim() == 2 and result.shape[0] == 2 and result.shape[1] != output:
        raise ConfigError(
            f"{where}: the network gives width {result.shape[1]}, the job says {output}: "
            f"change its last layer or the job's width"
        )
    if result.shape != (2, output):
        raise ConfigError(
            f"{where}: the network turns 2 rows into shape {list(result.shape)}, not [2, {output}]: "
            f"it must give one row of {output} numbers for each row"
        )


def _written(args: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value!r}" for key, value in args.items())


@contextmanager
def _importable(folder: Path | None, top: str, where: str, path: str) -> Iterator[None]:
    """Puts the folder on the import path for a while, if `top` lies there."""
    home = str(folder.resolve()) if folder is not None else ""
    _forget_other_folders(home)
    importlib.invalidate_caches()  # the user may have written the file a moment ago
    if not home or importlib.machinery.PathFinder.find_spec(top, [home]) is None:
        yield
        return
    if _comes_from_elsewhere(top, Path(home)):
        raise ConfigError(f"{where}: module = {path!r}: {top} in {home} hides an installed module: rename it")
    before = set(sys.modules)
    sys.path.insert(0, home)
    try:
        yield
    finally:
        with suppress(ValueError):
            sys.path.remove(home)
        for name in set(sys.modules) - before:
            if Path(getattr(sys.modules[name], "__file__", None) or "/").is_relative_to(home):
                setattr(sys.modules[name], _MARK, home)


def _forget_other_folders(home: str) -> None:
    """Lets the modules of other sites' folders be found no more; their classes live on in networks.

    Without this, two sites that each have a `bottom.py` would share the first one's.
    """
    for name, module in list(sys.modules.items()):
        if getattr(module, "__dict__", {}).get(_MARK, home) != home:
            del sys.modules[name]


def _comes_from_elsewhere(top: str, home: Path) -> bool:
    """Says whether `import top` finds something outside the folder: a library, the stdlib, a built-in."""
    if top in sys.stdlib_module_names:
        return True
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        spec = importlib.machinery.PathFinder.find_spec(top)
    places = [] if spec is None else [spec.origin, *(spec.submodule_search_locations or ())]
    return any(place and not Path(place).resolve().is_relative_to(home) for place in places)
