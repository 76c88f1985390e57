from __future__ import annotations

import json
import math
from typing import Any

import pytest

from vfl.data.fitted import Category, Number
from vfl.data.preparation import Preparation
from vfl.errors import DataError

WHOLE = Preparation(
    numeric_names=("a", "b"),
    categorical_names=("k",),
    date_names=("d",),
    date_parts=(("year",),),
    numbers=(
        Number(0.1, scale=0.5, quantiles=(0.0, 0.1, 7.0)),
        Number(None, mean=-0.0, scale=5e-324, quantiles=(-1e308, -1e308, 1e-3)),
        Number(None, mean=2024.5, scale=1 / 3),
    ),
    indicators=("b", "d"),
    categories=(Category("embedding", "error", "own", ("x", "y"), "y"),),
)


def test_a_preparation_survives_json_exactly() -> None:
    text = json.dumps(WHOLE.to_json())
    again = Preparation.from_json(json.loads(text))
    assert again == WHOLE
    assert json.dumps(again.to_json()) == text
    assert math.copysign(1, again.numbers[1].mean) == -1


def number(**changes: object) -> dict[str, Any]:
    first, *others = WHOLE.to_json()["numbers"]
    return {"numbers": [{**first, **changes}, *others]}


def category(**changes: object) -> dict[str, Any]:
    return {"categories": [{**WHOLE.to_json()["categories"][0], **changes}]}


GARBLED: list[dict[str, Any]] = [
    {"numbers": []},
    {"numbers": None},
    {"numbers": [1, 2, 3]},
    {"numbers": WHOLE.to_json()["numbers"][:2]},
    {"numeric_names": ["a", "a"]},
    {"numeric_names": ["a", "k"]},
    {"numeric_names": [1, 2]},
    {"numeric_names": ["a"]},
    {"categorical_names": []},
    {"categories": []},
    {"indicators": ["k"]},
    {"indicators": ["b", "b"]},
    {"indicators": "a"},
    {"date_names": []},
    {"date_parts": []},
    {"date_parts": [[]]},
    {"date_parts": [["century"]]},
    *(number(fill=fill) for fill in (math.nan, math.inf, "0")),
    *(number(mean=mean) for mean in (math.nan, -math.inf, "0", None)),
    *(number(scale=scale) for scale in (0.0, -1.0, math.nan, math.inf, 10**400, True, None)),
    *(number(quantiles=some) for some in ([1.0], [2.0, 2.0, 1.0], [1.0, 1.0, 1.0], [0.0, 1.0], 3)),
    *(number(quantiles=[0.0, some, 1.0]) for some in (2.0, math.nan, math.inf, None)),
    *(category(vocabulary=some) for some in (["y", "x"], ["y", "y"], ["", "y"], ["y", 1], [], "y")),
    *(category(most_frequent=some) for some in ("z", "", None, 3)),
    *(category(**{key: "?"}) for key in ("encode", "missing", "unknown")),
    category(missing="own"),
    category(vocabulary=[], most_frequent=""),
]


@pytest.mark.parametrize("change", GARBLED, ids=lambda change: str(change)[:60])
def test_a_garbled_preparation_is_an_error(change: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"^preparation: this is not what a run saves") as caught:
        Preparation.from_json({**WHOLE.to_json(), **change})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", sorted(WHOLE.to_json()))
def test_a_preparation_without_one_of_its_parts_is_an_error(key: str) -> None:
    saved = WHOLE.to_json()
    del saved[key]
    with pytest.raises(DataError, match=rf"^preparation: this is not what a run saves.*`{key}`"):
        Preparation.from_json(saved)


@pytest.mark.parametrize("saved", [{}, [], None, "text", {"mean": [0.0]}])
def test_what_is_no_preparation_at_all_is_an_error(saved: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"^preparation: this is not what a run saves"):
        Preparation.from_json(saved)
