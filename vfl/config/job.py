"""The job: what all parties agree on, compared key by key before any data moves."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Fact = str | int | float | bool | None

_OPTIMIZER: Final[dict[str, Any]] = {"name": "Adam", "lr": 1e-3}
#: What a recommendation has no use for: the key's default, and what to set instead.
_NOT_OF_RATINGS: Final[dict[str, tuple[object, str]]] = {
    "batch_size": (1, "; gradient steps part a round's ratings by protocols.{protocol}.batches"),
    "ahead": (0, ""),
    "optimizer": (_OPTIMIZER, "; gradient steps have protocols.{protocol}.optimizer"),
    "schedule": (None, ""),
    "clip_norm": (None, ""),
}

#: These keys are each host's own view of the network, so they are not compared.
_NOT_COMPARED: Final = re.compile(r"timing\..*|parties\.[^.]+\.address")


class Document(BaseModel):
    """Is the base of every part of a document: unknown keys are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class PartyEntry(Document):
    """Is one party as the others know it."""

    role: str
    width: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """How many numbers a row it brings to the cut; none for a party without features."""
    public_key: str | None = None
    """40 characters, as `vfl keys NAME` prints them."""
    address: str | None = None
    """`tcp://HOST:PORT` where the others reach it; only the party that they connect to has one."""

    @field_validator("public_key")
    @classmethod
    def _is_a_key(cls, key: str | None) -> str | None:
        if key is not None and not re.fullmatch(r"[!-~]{40}", key):
            raise ValueError("is no public key; paste the 40 characters that vfl keys NAME prints")
        return key

    @field_validator("address")
    @classmethod
    def _is_tcp(cls, address: str | None) -> str | None:
        if address is not None and not re.fullmatch(
            r"tcp://(\[[0-9a-fA-F:]+\]|[^:/\s]+):([0-9]{1,5}|\*)", address
        ):
            raise ValueError("write it as tcp://HOST:PORT")
        return address


class Split(Document):
    """Says which share of the rows, or ratings, is held out; a row's place follows from its id alone."""

    kind: Literal["fraction", "leave-one-out", "time"] = "fraction"
    """Of ratings: by the hash of user and item, one of each user, or the latest; see `vfl.ratings.splits`."""
    valid: Annotated[float, Field(ge=0, lt=1)] = 0.2
    test: Annotated[float, Field(ge=0, lt=1)] = 0.2

    @model_validator(mode="after")
    def _leaves_rows_to_train(self) -> Self:
        if self.valid + self.test >= 1:
            raise ValueError("valid + test must be below 1, so that rows remain to train on")
        return self


class EarlyStopping(Document):
    """Ends training when the validation score has not improved for `patience` epochs."""

    patience: Annotated[int, Field(ge=1)] = 5
    min_delta: Annotated[float, Field(ge=0)] = 0.0


class TimingEntry(Document):
    """How long to be patient, in seconds; see `vfl.wire.timing.Timing`."""

    join_s: Annotated[float, Field(gt=0)] = 600.0
    hear_s: Annotated[float, Field(gt=0)] = 300.0
    reconnect_s: Annotated[float, Field(gt=0)] = 2.0
    heartbeat_s: Annotated[float, Field(ge=0.1)] = 1.0


class Job(Document):
    """Is the whole job. `protocols` holds each protocol's own options under its name."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    protocol: str
    task: Literal["binary", "multiclass", "regression", "recommendation"]
    classes: Annotated[int, Field(ge=2, le=100_000)] | None = None
    scale: Annotated[list[float], Field(min_length=2, max_length=2)] | None = None
    """In a recommendation, the lowest and the highest rating there can be."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    align: Literal["psi", "ids", "given"] | None = None
    """How the parties find the rows that they share; see `protocols`. By default psi between hosts."""
    min_rows: Annotated[int, Field(ge=1)] = 32
    """The fewest shared rows to train on, so that no model knows a handful of people."""
    epochs: Annotated[int, Field(ge=1)]
    batch_size: Annotated[int, Field(ge=1)] = 1
    """Has to be set where networks are trained."""
    ahead: Annotated[int, Field(ge=0, le=32)] = 0
    """How many batches a feature party may run ahead of its gradients; 0 is exact."""
    on_absence: Literal["abort", "wait", "continue"] = "abort"
    """When a party vanishes: end the run, wait for it up to `patience_s`, or go on without it."""
    patience_s: Annotated[float, Field(gt=0, le=86_400)] = 60.0
    """How long to wait for a party whose connection is lost, where `on_absence` is "wait"."""
    metric: str | None = None
    """The validation score that picks the best epoch; by default auc, accuracy or rmse."""
    split: Split = Split()
    early_stopping: EarlyStopping | None = None
    optimizer: dict[str, Any] = Field(default_factory=lambda: dict(_OPTIMIZER))
    schedule: dict[str, Any] | None = None
    clip_norm: Annotated[float, Field(gt=0)] | None = None
    alone: bool = True
    """Whether to train without partners, too, to compare: the label party when all is over, and participants
    before they begin, for which the others wait."""
    parties: Annotated[dict[str, PartyEntry], Field(min_length=1)]
    protocols: dict[str, dict[str, Any]] = Field(default_factory=dict)
    timing: TimingEntry = TimingEntry()

    @field_validator("parties")
    @classmethod
    def _names_are_plain(cls, parties: dict[str, PartyEntry]) -> dict[str, PartyEntry]:
        for name in parties:
            if not is_party_name(name):
                raise ValueError(f"{name!r} is no party name: use a-z, 0-9, - and _, starting with a letter")
            if name == "job" or name in cls.model_fields:
                raise ValueError(f"{name!r} is a word of the job file itself; choose another party name")
        keys = [party.public_key for party in parties.values() if party.public_key]
        if len(keys) != len(set(keys)):
            raise ValueError("two parties share one public_key; make each its own with: vfl keys NAME")
        return parties

    @model_validator(mode="after")
    def _can_go_on(self) -> Self:
        if self.on_absence == "continue" and self.ahead:
            raise ValueError(
                'on_absence = "continue" needs ahead = 0: a batch that is under way cannot be taken back'
            )
        return self

    @model_validator(mode="after")
    def _classes_fit_the_task(self) -> Self:
        if self.task == "multiclass" and self.classes is None:
            raise ValueError("classes is missing: a multiclass task says how many there are")
        if self.task != "multiclass" and self.classes is not None:
            raise ValueError(f"classes is for a multiclass task, and this one is {self.task}")
        return self

    @model_validator(mode="after")
    def _keys_fit_the_task(self) -> Self:
        if self.task == "recommendation":
            self._check_recommendation()
        elif "batch_size" not in self.model_fields_set:
            raise ValueError("batch_size: is missing; add it")
        elif self.scale is not None:
            raise ValueError(f"scale is for a recommendation, and this task is {self.task}; leave it out")
        elif self.split.kind != "fraction":
            raise ValueError(f"split.kind = {self.split.kind!r} is for a recommendation; leave it out")
        return self

    def _check_recommendation(self) -> None:
        if self.scale is None:
            raise ValueError("scale is missing: a recommendation says between which numbers ratings lie")
        low, high = self.scale
        if not low < high:
            raise ValueError(f"scale = [{low:g}, {high:g}]: write the lowest rating, then the highest")
        for key, (default, instead) in _NOT_OF_RATINGS.items():
            value = getattr(self, key)
            if value != default:
                words = instead.format(protocol=self.protocol)
                raise ValueError(f"{key} = {value!r} is of no use in a recommendation; leave it out{words}")
        for name, party in self.parties.items():
            if party.width is not None:
                raise ValueError(
                    f"parties.{name}.width = {party.width} is of no use in a recommendation; leave it out"
                )

    def facts(self) -> dict[str, Fact]:
        """Flattens all that the parties must agree on to one value a dotted key."""
        return {
            key: value
            for key, value in flatten(self.model_dump(mode="json")).items()
            if not _NOT_COMPARED.fullmatch(key)
        }

    @property
    def reconnect_s(self) -> float:
        """How long a connection may be gone before its party counts as lost."""
        return self.patience_s if self.on_absence == "wait" else self.timing.reconnect_s

    def with_role(self, role: str) -> list[str]:
        """Lists the parties of one role, in the job's order."""
        return [name for name, party in self.parties.items() if party.role == role]


def is_party_name(name: str) -> bool:
    """Tells whether a party may be called that: it is a key, a file's name and a word on a line."""
    return bool(re.fullmatch(r"[a-z][a-z0-9_-]{0,31}", name))


def flatten(document: Mapping[str, Any], prefix: str = "") -> dict[str, Fact]:
    """Flattens nested tables and lists to one scalar a dotted key; an empty table leaves nothing."""
    flat: dict[str, Fact] = {}
    for key, value in document.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        elif isinstance(value, list):
            flat |= flatten({str(place): item for place, item in enumerate(value)}, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
