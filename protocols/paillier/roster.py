"""Who can take part in the Paillier cut, and with which options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from torch import nn

from vfl.errors import ConfigError
from vfl.learn.cut import CUTS, joined_width
from vfl.learn.learner import Learner
from vfl.learn.presets import choose
from vfl.paillier.keys import DEFAULT_KEY_BITS, KEY_BITS, LEAST_UNSAFE_BITS
from vfl.paillier.share import Share
from vfl.session import Session

_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Config(BaseModel):
    """Holds this protocol's options, from `[protocols.paillier]` in the job."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    width: Annotated[int, Field(ge=1)]
    """How many numbers a row the cut layer makes of the feature party's embedding: W is [d, width]."""
    lr: _Positive = 0.05
    """The learning rate of W, which plain gradient descent trains: anything else is not linear in shares."""
    cut: str = "concat"
    """concat, sum, mean, max, product, or `package.module:Class`: how z and the label party's own embedding
    are joined, where it has columns."""
    clip: _Positive = 8.0
    """The largest activation, of either sign, that fits for certain."""
    gradient_clip: _Positive = 1.0
    """The largest gradient of one row's loss at the cut, of either sign, that fits for certain."""
    value_bits: Annotated[int, Field(ge=8, le=24)] = 16
    """The bits of an activation, with its sign."""
    gradient_bits: Annotated[int, Field(ge=8, le=24)] = 16
    """The bits of a gradient, with its sign."""
    weight_fraction_bits: Annotated[int, Field(ge=4, le=40)] = 16
    """Weights are used to the nearest multiples of 2^-weight_fraction_bits, up or down at random."""
    noise_bits: Annotated[int, Field(ge=40, le=80)] = 64
    """Noise hides the gradient of W but for 2^-noise_bits."""
    key_bits: int = DEFAULT_KEY_BITS
    """2048 or 3072."""
    unsafe_small_key: bool = False
    """Allows smaller keys, which protect nothing; for tests."""
    encryption: Literal["paillier", "none"] = "paillier"
    """"none" says the same numbers in the clear; for debugging only."""

    @field_validator("cut")
    @classmethod
    def _is_known(cls, cut: str) -> str:
        if cut not in CUTS and ":" not in cut:
            raise ValueError(f"is no cut: {choose(cut, CUTS)}, or package.module:Class")
        return cut

    @field_validator("clip")
    @classmethod
    def _is_no_more_than_the_smallest_bits_hold(cls, clip: float) -> float:
        if clip > 2.0**20:
            raise ValueError("is more than any value_bits hold; set 1048576 or less")
        return clip

    @model_validator(mode="after")
    def _has_a_key(self) -> Config:
        if self.key_bits in KEY_BITS:
            return self
        if self.key_bits % 64 or not LEAST_UNSAFE_BITS <= self.key_bits < min(KEY_BITS):
            raise ValueError(f"key_bits = {self.key_bits}: set {' or '.join(map(str, KEY_BITS))}")
        if not self.unsafe_small_key:
            raise ValueError(
                f"key_bits = {self.key_bits} protects nothing: set {' or '.join(map(str, KEY_BITS))}, or "
                f"unsafe_small_key = true for a test"
            )
        return self

    @model_validator(mode="after")
    def _holds_its_clip(self) -> Config:
        if self.clip > (1 << (self.value_bits - 1)) - 1:
            raise ValueError(f"clip = {self.clip:g}: does not fit value_bits = {self.value_bits}; lower it")
        return self


def check_roster(config: Config, roles: Mapping[str, str], widths: Mapping[str, int | None]) -> None:
    """Checks who takes part.

    Raises:
        ConfigError: unless there are one label party and one feature party with a width, and what each
            brings fits the cut.
    """
    labels, features = ([n for n, role in roles.items() if role == r] for r in ("label", "feature"))
    if len(labels) != 1:
        raise ConfigError(f"parties: {len(labels)} have role = 'label'; exactly one holds the label")
    if len(features) != 1:
        raise ConfigError(
            f"parties: {len(features)} have role = 'feature'; the Paillier cut is between two, so there is "
            f'one; with more, set protocol = "sfa" or "splitnn"'
        )
    if widths[features[0]] is None:
        raise ConfigError(
            f"parties.{features[0]}.width: is missing; say how many numbers a row it brings to the cut"
        )
    if config.cut in CUTS:
        contributors = {name: width for name in (*features, *labels) if (width := widths[name]) is not None}
        own = contributors.get(labels[0], config.width)
        if config.cut != "concat" and own != config.width:
            raise ConfigError(
                f"parties.{labels[0]}.width: is {own} and protocols.paillier.width is {config.width}; "
                f'cut = "{config.cut}" needs one width: make them equal, or set cut = "concat"'
            )
        joined_width(config.cut, joint_widths(config, contributors))


def joint_widths(config: Config, widths: Mapping[str, int]) -> dict[str, int]:
    """Returns what arrives at the label party's joint: the feature party's, which is first, is W's width.

    Args:
        config: with W's width.
        widths: each contributor's, the feature party's first.
    """
    feature = next(iter(widths))
    return dict(widths) | {feature: config.width}


def layers(config: Config, role: str, widths: Mapping[str, int]) -> dict[str, nn.Module]:
    """Makes what a party trains beside its networks: its share of W, which is [d, width].

    Args:
        config: with W's width.
        role: of the party; both have one.
        widths: each contributor's, the feature party's first.
    """
    return {"share": Share(next(iter(widths.values())), config.width)}


def share_of(layers: Mapping[str, Learner]) -> Share:
    """Returns a party's share of W."""
    share = layers["share"].network
    assert isinstance(share, Share)  # noqa: S101 - `layers` made it
    return share


def ends(session: Session) -> tuple[str, str]:
    """Returns the names of the feature party and of the label party."""
    return session.with_role("feature")[0], session.label


def learns(session: Session, drawn: Mapping[str, str]) -> dict[str, str]:
    """Picks what holds in this job of what the docstring says, for each party."""
    feature, label = ends(session)
    said = {feature: drawn["feature"], label: drawn["label"]}
    d, k = session.widths[feature], session.options.width
    if k <= d:
        said[feature] += (
            f" With width = {k} and {d} activations that holds: z and dL/dz of every training row, up to "
            f"{_up_to(k)}."
        )
    if d <= k:
        said[label] += (
            f" With {d} activations and width = {k} that holds: the activations of every row, up to "
            f"{_up_to(d)}."
        )
    if session.options.key_bits not in KEY_BITS:
        said[label] += (
            f" And whatever is encrypted, if it cares to: key_bits = {session.options.key_bits} protects "
            f"nothing; for tests only."
        )
    if session.options.encryption == "none":
        said[label] = (
            "Every activation of the feature party, in the clear, "
            'since encryption = "none"; for debugging only.'
        )
    return said


def _up_to(size: int) -> str:
    if size == 1:
        return "one factor for all rows"
    return f"one unknown {size} × {size} matrix for all rows"
