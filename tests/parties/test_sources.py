"""Public data sets that sites name: what is fetched, and what may stand in for what cannot be had."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tomli_w
from small_jobs import change_documents, small_job
from small_ratings import CLUBS, small_recommender

from parties.assembly import Assembly, assemble_folder
from parties.sources import with_data_at_hand
from vfl.errors import DataError


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Has movielens nowhere, and notes what is asked for."""
    parts: list[str] = []

    def fetch(part: str, *rest: object) -> None:
        parts.append(part)
        if part.startswith("movielens"):
            raise DataError("movielens: nowhere to be found")

    monkeypatch.setattr("vfl.datasets.fetch_dataset", fetch)
    return parts


def public(tmp_path: Path, *, stand_in: bool = True) -> Assembly:
    """Names public data at every club: the ratings of three clubs, and their catalogue."""
    folder = small_recommender(tmp_path / "job")
    for name, club in zip(CLUBS, "abc", strict=True):
        site: dict[str, Any] = {"party": name}
        for key, part in (("ratings", f"club_{club}"), ("catalogue", "movies")):
            site[key] = {"source": f"dataset:movielens/{part}", "item": "movie"}
            site[key] |= {"stand_in": f"dataset:made-ratings/{part}"} if stand_in else {}
        (folder / f"{name}.toml").write_text(tomli_w.dumps(site), encoding="utf-8")
    return assemble_folder(folder)


def test_a_stand_in_takes_over_at_all_parties_and_is_told_of_once(tmp_path: Path, asked: list[str]) -> None:
    told: list[str] = []
    found = with_data_at_hand(public(tmp_path), lambda event: told.append(str(event.get("text"))))
    assert asked == ["movielens/club_a"], "what is not there is asked for once"
    sources = {
        entry.source
        for name in CLUBS
        for entry in (found.sites[name].site.ratings, found.sites[name].site.catalogue)
        if entry is not None
    }
    assert sources == {f"dataset:made-ratings/{part}" for part in ("club_a", "club_b", "club_c", "movies")}
    assert list(found.notes) == told
    assert told[0].startswith("MADE-UP DATA: movielens: nowhere to be found. Until then ")


def test_without_a_stand_in_what_cannot_be_had_is_an_error(tmp_path: Path, asked: list[str]) -> None:
    with pytest.raises(DataError, match="nowhere to be found"):
        with_data_at_hand(public(tmp_path, stand_in=False), lambda event: None)


def test_what_is_at_hand_stays_what_it_is(tmp_path: Path, asked: list[str]) -> None:
    folder = small_job(tmp_path / "job")
    change_documents(folder, {"bank": {"table": {"source": "dataset:adult/employer"}}})
    assembly = assemble_folder(folder)
    found = with_data_at_hand(assembly, lambda event: None)
    assert asked == ["adult/employer"]
    assert (found.sites, found.notes) == (assembly.sites, ())
