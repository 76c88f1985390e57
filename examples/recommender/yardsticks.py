"""What stands beside the variants: one holder of all ratings, each alone, popularity, and scikit-surprise."""

from __future__ import annotations

import functools
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cases import FRACTION, LEAVE_ONE_OUT, Dealt, load, organisations

from vfl.learn.plan import Plan
from vfl.ratings.alone import Settings, train_alone
from vfl.ratings.factors import Factors
from vfl.ratings.fixed import SUMS
from vfl.ratings.holding import RatingsHolding, merge
from vfl.ratings.personal import MaskKind, PersonalMask, fit_mask
from vfl.ratings.ranking import ranking_scores, ranking_sums
from vfl.ratings.scores import error_scores, error_sums

SURPRISE = Path(__file__).with_name("surprise_mf.py")


def yardsticks(
    seed: int, rounds: int, rank: int, made_up: bool, python: str | None
) -> Iterator[dict[str, Any]]:
    """Scores all of them with one seed: errors on one split, ranks on the other."""
    fits = {
        "centralised, no mask": functools.partial(_centralised, "none"),
        "centralised, user_mean": functools.partial(_centralised, "user_mean"),
        "alone, user_mean": _alone,
        "popularity": _popular,
    }
    if python:
        fits[f"surprise SVD, {rank} factors"] = functools.partial(_surprise, python, rank)
        fits["surprise SVD, its 100 factors"] = functools.partial(_surprise, python, 100)
    dealt = {split.kind: organisations(split, seed, made_up) for split in (FRACTION, LEAVE_ONE_OUT)}
    settings = Settings(Plan(rounds, metric="rmse"), rank=rank, seed=seed)
    for name, fit in fits.items():
        scores = {kind: fit(one, settings, made_up) for kind, one in dealt.items()}
        test = _kept(scores[FRACTION.kind], "rmse", "mae")
        yield {"yardstick": name, **test, **_kept(scores[LEAVE_ONE_OUT.kind], "hr@10", "ndcg@10")}


def _kept(scores: Mapping[str, float], *names: str) -> dict[str, float]:
    return {name: scores[name] for name in names if name in scores}


def has_surprise(python: str) -> bool:
    """Tells whether that Python has scikit-surprise."""
    return subprocess.run([python, "-c", "import surprise"], capture_output=True).returncode == 0


def _centralised(kind: MaskKind, dealt: Dealt, settings: Settings, made_up: bool) -> dict[str, float]:
    whole = merge(list(dealt.values()))
    return train_alone(whole, fit_mask(kind, whole, load(made_up)[1]), settings).test


def _alone(dealt: Dealt, settings: Settings, made_up: bool) -> dict[str, float]:
    errors, ranks = [], []
    for one in dealt.values():
        mask = fit_mask("user_mean", one)
        factors = train_alone(one, mask, settings).factors[0]
        errors.append(error_sums(factors, mask, one, "test"))
        ranks.append(ranking_sums(factors, mask, one, "test"))
    return error_scores(SUMS.total(errors)) | ranking_scores(SUMS.total(ranks))


def _popular(dealt: Dealt, settings: Settings, made_up: bool) -> dict[str, float]:
    """Ranks by how many have rated an item; its errors are no predictions'."""
    whole = merge(list(dealt.values()))
    counts = np.bincount(whole.train.shared, minlength=whole.m)
    found = _scored(
        whole, np.zeros((whole.n_own, 1)), np.zeros(whole.n_own), np.zeros((whole.m, 1)), counts, 0.0
    )
    return _kept(found, "hr@10", "ndcg@10")


def _surprise(python: str, rank: int, dealt: Dealt, settings: Settings, made_up: bool) -> dict[str, float]:
    whole = merge(list(dealt.values()))
    part = whole.train
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "ratings.npz"), Path(folder, "factors.npz")
        rows = {"user": part.own, "item": part.shared, "value": part.value}
        np.savez(source, scale=np.array(whole.scale), shape=np.array([whole.n_own, whole.m]), **rows)
        command = [python, str(SURPRISE), str(source), str(target), str(settings.seed), str(rank)]
        subprocess.run(command, check=True)
        with np.load(target) as found:
            return _scored(whole, *(found[name] for name in ("p", "c", "q", "b")), float(found["mean"]))


def _scored(
    whole: RatingsHolding, p: np.ndarray, c: np.ndarray, q: np.ndarray, b: np.ndarray, mean: float
) -> dict[str, float]:
    factors = Factors(whole.n_own, whole.m, p.shape[1])
    with torch.no_grad():
        factors.own.copy_(torch.from_numpy(np.column_stack([p, c])))
        factors.shared.copy_(torch.from_numpy(np.column_stack([q, b]).astype(np.float64)))
    factors.mu.fill_(mean)
    mask = PersonalMask("none", whole.n_own, whole.m)
    errors = error_sums(factors, mask, whole, "test")
    return error_scores(errors) | ranking_scores(ranking_sums(factors, mask, whole, "test"))
