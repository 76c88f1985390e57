"""The top floor: who runs what, in which order; the command line lives here.

from parties import run
result = run("examples/breast_cancer")
print(result.metrics["test"]["auc"], result.report)
"""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from parties.api import Result, run
    from parties.predicting import Prediction, predict

__all__ = ["Prediction", "Result", "predict", "run"]

_HOME = {
    "Result": "parties.api",
    "run": "parties.api",
    "Prediction": "parties.predicting",
    "predict": "parties.predicting",
}


def _check_siblings() -> None:
    """Makes sure that `vfl` and `protocols` are ours: a folder of that name in the user's own would win.

    Raises:
        ImportError: naming the stranger.
    """
    home = Path(__file__).resolve().parent.parent
    for name in ("vfl", "protocols"):
        spec = importlib.util.find_spec(name)
        where = Path(spec.origin).resolve().parent if spec and spec.origin else None
        if where != home / name:
            found = (
                where or next(iter(spec.submodule_search_locations or ()), "nothing") if spec else "nothing"
            )
            raise ImportError(
                f"'{name}' is taken by {found}, not by vfl-framework's own {home / name}: "
                f"rename that folder, or start from another one"
            )


_check_siblings()


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a module attribute is any
    if name in __all__:  # imported where used: `vfl --help` must not wait for torch
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
