"""Reads and writes the documents; every error is one line with file, key, value and remedy."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import tomli_w
from pydantic import BaseModel, ValidationError

from vfl.config.job import Job
from vfl.config.site import Site
from vfl.errors import ConfigError, StorageError

D = TypeVar("D", bound=BaseModel)


def load_job(path: Path, overrides: Sequence[str] = ()) -> Job:
    """Reads a job, with `key=value` overrides on top.

    Raises:
        ConfigError: if the file or a value in it cannot be used.
    """
    return validate(Job, override(read_toml(path), overrides), path.name)


def load_site(path: Path, overrides: Sequence[str] = ()) -> Site:
    """Reads a site, with `key=value` overrides on top.

    Raises:
        ConfigError: if the file or a value in it cannot be used.
    """
    return validate(Site, override(read_toml(path), overrides), path.name)


def write_document(path: Path, document: BaseModel) -> None:
    """Writes a resolved document as TOML, every default spelt out.

    Raises:
        StorageError: if it cannot be written.
    """
    text = tomli_w.dumps(document.model_dump(mode="json", exclude_none=True))
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StorageError(
            f"{path}: cannot be written ({error.strerror}); free some space, or use --out"
        ) from error


def read_toml(path: Path) -> dict[str, Any]:
    """Parses one TOML file.

    Raises:
        ConfigError: if it is missing, unreadable or no TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))  # some editors begin with a mark
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file{_nearby(path)}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error.__class__.__name__}); check the path") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: is no valid TOML: {error}") from error


def override(document: dict[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """Sets each `dotted.key=value` in a parsed document; a value is TOML, or else plain text.

    Raises:
        ConfigError: if one is not of that form or runs through something that is no table.
    """
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"--set {text}: write it as key=value, for example --set epochs=3")
        *path, last = _parse_key(key.strip())
        place = document
        for part in path:
            place = place.setdefault(part, {})
            if not isinstance(place, dict):
                raise ConfigError(f"--set {text}: {part} is a value, not a table")
        place[last] = _parse_value(value.strip())
    return document


def validate(model: type[D], data: Mapping[str, Any], where: str) -> D:
    """Validates one document or part of one.

    Raises:
        ConfigError: one line a fault, each with place, value and remedy.
    """
    try:
        return model.model_validate(data, strict=True)  # "no" is no false, whoever wrote the model
    except ValidationError as error:
        lines = [_sentence(model, dict(fault), where) for fault in error.errors()]
        raise ConfigError("\n".join(dict.fromkeys(lines))) from error


def suggestion(word: str, known: Iterable[str]) -> str:
    """Ends an error about an unknown word: the nearest known one, else all of them."""
    known = list(known)
    near = difflib.get_close_matches(word, known, 1)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"


def _sentence(model: type[BaseModel], fault: dict[str, Any], where: str) -> str:
    place = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        known = _fields_at(model, fault["loc"][:-1])
        return f"{where}: {place}: unknown key; {suggestion(str(fault['loc'][-1]), known)}"
    if fault["type"] == "missing":
        return f"{where}: {place}: is missing; add it"
    words = str(fault["msg"]).removeprefix("Value error, ").removeprefix("Input ")
    value = "" if isinstance(fault["input"], Mapping) else f" = {_short(fault['input'])}"
    return f"{where}: {place}{value}: {words}" if place else f"{where}: {words}"


def _fields_at(model: type[BaseModel], loc: Sequence[int | str]) -> list[str]:
    here: Any = model
    for part in loc:
        if here and str(part) in here.model_fields:  # else it is a key of a table, such as a party's name
            here = _model_inside(here.model_fields[str(part)].annotation)
    return list(here.model_fields) if here else []


def _model_inside(annotation: Any) -> Any:  # noqa: ANN401 - annotations are any
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_inside(part))), None)


def _parse_key(text: str) -> list[str]:
    """Parts a dotted key as TOML does, quoted parts and all; what TOML would not take, at its dots."""
    try:
        found: Any = tomllib.loads(f"{text} = 0")
    except tomllib.TOMLDecodeError:
        return text.split(".")
    parts = []
    while isinstance(found, dict):
        ((part, found),) = found.items()
        parts.append(part)
    return parts


def _parse_value(text: str) -> Any:  # noqa: ANN401 - a TOML value is any
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:59] + "…"


def _nearby(path: Path) -> str:
    others = sorted(other.name for other in path.parent.glob("*.toml")) if path.parent.is_dir() else []
    return f"; {path.parent} holds {', '.join(others)}" if others else ""
