"""A small job of three participants' ratings, and the changes that make others of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
from small_jobs import change_documents, write_csv

CLUBS = ("north", "east", "south")
FILMS = 30
MEMBERS = 14
GENRES = ("calm", "loud", "odd")


def ratings(seed: int = 0) -> dict[str, list[Any]]:
    """Draws who rated what, and when; nobody rates all films."""
    random = np.random.default_rng(seed)
    taste, kind = random.normal(size=(3 * MEMBERS, 2)), random.normal(size=(FILMS, 2))
    table: dict[str, list[Any]] = {"user": [], "film": [], "stars": [], "at": []}
    for user in range(3 * MEMBERS):
        for film in np.sort(random.permutation(FILMS)[: random.integers(12, 20)]):
            liked = 3 + (taste[user] * kind[film]).sum() + random.normal() / 3
            table["user"].append(f"u{user:02}")
            table["film"].append(f"f{film:02}")
            table["stars"].append(float(np.clip(np.rint(liked), 1, 5)))
            table["at"].append(int(random.integers(1000, 9999)))
    return table


def small_recommender(folder: Path, *, by: str = "user", **changes: object) -> Path:
    """Writes a job folder: `north`, `east` and `south` have ratings, `carol` adds up.

    With by = "user" each has members of its own, with by = "item" films of its own that all may rate.
    `changes` go into the job, those named for a party into its site; a value of None takes a key away.
    """
    job: dict[str, Any] = {
        "name": "films",
        "protocol": "fedmmf",
        "task": "recommendation",
        "scale": [1.0, 5.0],
        "epochs": 4,
        "split": {"valid": 0.15, "test": 0.15},
        "parties": {name: {"role": "participant"} for name in CLUBS} | {"carol": {"role": "coordinator"}},
        "protocols": {"fedmmf": {"by": by, "rank": 2}},
    }
    whole = ratings()
    folder.mkdir(parents=True, exist_ok=True)
    films = {
        "film": [f"f{film:02}" for film in range(FILMS)],
        "title": [f"Film no. {film}" for film in range(FILMS)],
        "genres": [f"{GENRES[film % 3]}|{GENRES[(film + 1) % 3]}" for film in range(FILMS)],
    }
    for place, name in enumerate(CLUBS):
        key, n = ("user", 3) if by == "user" else ("film", 3)
        rows = [row for row, one in enumerate(whole[key]) if int(one[1:]) % n == place]
        write_csv(
            folder / f"{name}.csv",
            {column: [values[row] for row in rows] for column, values in whole.items()},
        )
        kept = [film for film in range(FILMS) if by == "user" or film % 3 == place]
        write_csv(
            folder / f"{name}_films.csv",
            {column: [values[film] for film in kept] for column, values in films.items()},
        )
        site = {
            "party": name,
            "ratings": {"source": f"{name}.csv", "item": "film", "rating": "stars"},
            "catalogue": {
                "source": f"{name}_films.csv", "item": "film", "title": "title", "features": ["genres"],
            },
        }  # fmt: skip
        (folder / f"{name}.toml").write_text(tomli_w.dumps(site), encoding="utf-8")
    (folder / "carol.toml").write_text(tomli_w.dumps({"party": "carol"}), encoding="utf-8")
    (folder / "job.toml").write_text(tomli_w.dumps(job), encoding="utf-8")
    change_documents(folder, changes)
    return folder


def add_rows(folder: Path, name: str, *rows: str) -> None:
    """Adds lines to a participant's ratings, or to another table in the folder."""
    with (folder / f"{name}.csv").open("a", encoding="utf-8") as file:
        file.writelines(f"{row}\n" for row in rows)
