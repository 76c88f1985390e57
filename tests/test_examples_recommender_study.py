"""The study of the recommender runs, and shows what its page states."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parent.parent / "examples" / "recommender"


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The whole study on made-up ratings, once: its folder and what it printed."""
    pytest.importorskip("phe")
    out = tmp_path_factory.mktemp("study")
    command = [sys.executable, str(FOLDER / "study.py"), "--quick", "--out", str(out)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=550, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "MADE UP" in done.stderr
    assert "scikit-surprise is left out" in done.stderr
    return out, done.stdout


def records(out: Path, case: str) -> list[dict[str, Any]]:
    found = json.loads((out / "numbers.json").read_text())["records"]
    return [one for one in found if one.get("case") == case]


@pytest.mark.timeout(600)
def test_one_command_leaves_numbers_tables_and_three_figures(quick: tuple[Path, str]) -> None:
    out, printed = quick
    for name in ("accuracy.png", "ratings.png", "rated.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG\r\n")
        assert (out / name).stat().st_size > 10_000
    assert printed.startswith("**The ratings are made up")
    for words in ("centralised, no mask", "popularity", "| user_mean | adaptive |", "### Encrypted"):
        assert words in printed
    assert "nan" not in printed


@pytest.mark.timeout(600)
def test_aggregations_end_alike_and_only_plain_contributions_are_read(quick: tuple[Path, str]) -> None:
    out, _ = quick
    both = records(out, "organisations") + records(out, "users")
    assert {one["aggregation"] for one in both} == {"plain", "masked", "adaptive"}
    assert all(one["equals"] for one in records(out, "organisations") + records(out, "paillier"))
    for one in both:
        if one["aggregation"] == "plain":
            assert one["own"]["read"] > 0.4
            assert one["own"]["auc"] == 1.0
        elif not one["plain"]:
            assert one["own"]["read"] == 0.0
            assert one["own"]["best"] < 0.05
            assert abs(one["own"]["auc"] - 0.5) < 0.15
