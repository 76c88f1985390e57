"""Who plays in the battery, for each set of roles, and the job, sites and tables that they play with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w

import protocols

ROWS, BATCH_SIZE, EPOCHS = 90, 16, 2


@dataclass(frozen=True)
class Player:
    """Is one party of a roster: its role, its cut width if it has columns, whether it has the label."""

    role: str
    width: int | None = 4
    label: bool = False


@dataclass(frozen=True)
class Scene:
    """Is one way of casting a protocol's roles; in it a party may vanish, for the others to go on."""

    players: Mapping[str, Player]
    vanishes: str = ""


BANK = {"bank": Player("feature")}
TWO = BANK | {"shop": Player("feature")}
CLINIC = {"clinic": Player("label", label=True)}
CAROL = {"carol": Player("coordinator", width=3)}
CLUB = {"club": Player("feature")}

#: Who plays, for each set of roles: at least two of every role that may be taken twice, and between them
#: all that may be said is said.
ROSTERS: dict[frozenset[str], dict[str, Scene]] = {
    frozenset({"feature", "label"}): {"": Scene(TWO | CLINIC)},
    frozenset({"feature", "label", "coordinator"}): {
        "": Scene(TWO | CLINIC),
        "coordinator": Scene(TWO | CLINIC | CAROL),
        "vanishing": Scene(TWO | CLUB | CLINIC | CAROL, vanishes="club"),
    },
}

#: Who plays in protocols that take fewer parties than these.
FEWER: dict[str, dict[str, Scene]] = {"paillier": {"": Scene(BANK | CLINIC)}}

#: What `[protocols.NAME]` of the job must say where the defaults will not do.
OPTIONS: dict[str, dict[str, Any]] = {"paillier": {"width": 3, "key_bits": 256, "unsafe_small_key": True}}


#: Protocols that train no networks on rows, and the module that proves the same of them.
OF_ITS_OWN: dict[str, str] = {"fedmmf": "test_fedmmf_battery"}


def known_scenes(protocol: protocols.Protocol) -> dict[str, Scene]:
    return FEWER.get(protocol.name) or ROSTERS.get(frozenset(protocol.roles), {})


def scenes_of(protocol: protocols.Protocol) -> dict[str, Scene]:
    roles = frozenset(protocol.roles)
    if not known_scenes(protocol):
        pytest.fail(
            f"protocol {protocol.name} has roles {sorted(roles)}, and no roster plays them: add "
            f"frozenset({sorted(roles)}) with its parties to ROSTERS in tests/protocols/scenes.py"
        )
    return known_scenes(protocol)


def write_job(folder: Path, protocol: str, roster: Mapping[str, Player], *, goes_on: bool = False) -> None:
    """Writes job, sites and tables: each party has three numeric columns and one of words."""
    rng = np.random.default_rng(5)
    signal = np.zeros(ROWS)
    for name, player in sorted(roster.items(), key=lambda item: item[1].label):
        if player.role == "coordinator":
            trunk = {"preset": "mlp", "hidden": [6], "dropout": 0.2}
            (folder / f"{name}.toml").write_text(tomli_w.dumps({"party": name, "trunk": trunk}))
            continue
        x = rng.normal(size=(ROWS, 3))
        signal += x[:, 0] * (player.width is not None)
        words = rng.choice(["red", "green", "blue"], ROWS)
        truth = np.where(signal > 0, "ill", "well")
        lines = ["id,a,b,c,colour,state"]
        rows = [f"p{i},{x[i, 0]},{x[i, 1]},{x[i, 2]},{words[i]},{truth[i]}" for i in rng.permutation(ROWS)]
        (folder / f"{name}.csv").write_text("\n".join(lines + rows))
        table: dict[str, Any] = {"source": f"{name}.csv"}
        site: dict[str, Any] = {"party": name, "table": table}
        if player.width is not None:
            table |= {"columns": ["a", "b", "c"], "categorical": ["colour"]}
            site["bottom"] = {"preset": "mlp", "hidden": [5], "dropout": 0.2}
        if player.label:
            behind = "head" if any(one.role == "coordinator" for one in roster.values()) else "trunk"
            site |= {"label": {"column": "state"}, behind: {"preset": "mlp", "hidden": [6], "dropout": 0.2}}
        (folder / f"{name}.toml").write_text(tomli_w.dumps(site))
    entries = {
        name: {"role": player.role} | ({"width": player.width} if player.width is not None else {})
        for name, player in roster.items()
    }
    job = {"name": "battery", "protocol": protocol, "task": "binary", "epochs": EPOCHS, "seed": 1}
    job |= {"batch_size": BATCH_SIZE, "parties": entries, "protocols": {protocol: OPTIONS.get(protocol, {})}}
    job |= {"on_absence": "continue"} if goes_on else {}
    (folder / "job.toml").write_text(tomli_w.dumps(job))
