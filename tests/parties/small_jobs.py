"""A small job that trains in a moment, written as a user writes it."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w

from vfl.config.load import read_toml
from vfl.wire.zeromq import make_keys

PEOPLE = 80
NAMES = ("bank", "shop", "club")
_COLUMNS = {
    "bank": ["income", "debt"],
    "shop": ["visits", "spent", "town"],
    "club": ["age", "buys"],
    "mall": ["spent"],
}
# Short, but not so short that a loaded machine looks like a dead one.
SHORT = {"join_s": 30.0, "hear_s": 20.0, "reconnect_s": 1.0, "heartbeat_s": 1.0}


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def people(seed: int = 0, n: int = PEOPLE) -> dict[str, list[Any]]:
    """Makes a table of people whom a bank and a shop both know; who buys follows from both."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(n, 5))
    buys = x[:, 0] + x[:, 2] - x[:, 4] + 0.3 * random.normal(size=n) > 0
    return {
        "id": [f"p{number:03d}" for number in range(n)],
        **{
            name: x[:, place].tolist()
            for place, name in enumerate(("income", "debt", "visits", "spent", "age"))
        },
        "town": [("here", "there", "elsewhere")[number % 3] for number in range(n)],
        "buys": ["yes" if bought else "no" for bought in buys],
    }


def write_csv(path: Path, columns: dict[str, list[Any]]) -> Path:
    lines = [",".join(columns), *(",".join(map(str, row)) for row in zip(*columns.values(), strict=True))]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def small_job(folder: Path, **changes: object) -> Path:
    """Writes a folder: `bank` and `shop` have columns, `club` has one of its own and the label.

    `changes` go into the job, those named for a party into its site; a value of None takes a key away.
    `mall`, with a column, and `carol`, without a table, take part where the changes give them a role.
    """
    table = people()
    job: dict[str, Any] = {
        "name": "small",
        "protocol": "splitnn",
        "task": "binary",
        "epochs": 2,
        "batch_size": 16,
        "parties": {
            "bank": {"role": "feature", "width": 4},
            "shop": {"role": "feature", "width": 4},
            "club": {"role": "label", "width": 2},
        },
    }
    sites: dict[str, dict[str, Any]] = {
        "bank": {"table": {"source": "bank.csv", "columns": ["income", "debt"]}},
        "shop": {"table": {"source": "shop.csv", "columns": ["visits", "spent"], "categorical": ["town"]}},
        "club": {"table": {"source": "club.csv", "columns": ["age"]}, "label": {"column": "buys"}},
        "mall": {"table": {"source": "mall.csv", "columns": ["spent"]}},
        "carol": {},
    }
    for key, value in changes.items():
        _change(sites.get(key, job), value if key in sites else {key: value})
    folder.mkdir(parents=True, exist_ok=True)
    for name, site in sites.items():
        if name in ("mall", "carol") and name not in job["parties"]:
            continue
        if name in _COLUMNS:
            write_csv(folder / f"{name}.csv", {column: table[column] for column in ["id", *_COLUMNS[name]]})
        (folder / f"{name}.toml").write_text(tomli_w.dumps({"party": name, **site}), encoding="utf-8")
    (folder / "job.toml").write_text(tomli_w.dumps(job), encoding="utf-8")
    return folder


def summed(parties: Mapping[str, Any] | None = None, **changes: object) -> dict[str, Any]:
    """Returns the changes that make the small job one of masked sums, with `carol` as its coordinator."""
    made: dict[str, Any] = {"club": {"width": 4}, "carol": {"role": "coordinator", "width": 8}}
    for name, entry in (parties or {}).items():
        made[name] = None if entry is None else made.get(name, {}) | entry
    return {"protocol": "sfa", "parties": made} | changes


def encrypted(**changes: object) -> dict[str, Any]:
    """Returns the changes that make the small job one of the Paillier cut, of the bank and the club alone.

    `changes` go into the job, those named for an option of the protocol there. Unless one says otherwise the
    numbers are in the clear, which makes no difference to the dialogue.
    """
    options: dict[str, Any] = {"width": 3, "key_bits": 1024, "unsafe_small_key": True, "encryption": "none"}
    options |= {key: changes.pop(key) for key in ("encryption", "key_bits", "lr", "cut") if key in changes}
    parties = {"shop": None, "club": {"width": 4}}
    return {"protocol": "paillier", "protocols": {"paillier": options}, "parties": parties} | changes


def on_the_network(folder: Path, **changes: object) -> Path:
    """Writes the small job for `vfl party`: keys, an address, patience in seconds."""
    small_job(folder, **({"timing": SHORT} | changes))
    return give_keys(folder)


def give_keys(folder: Path) -> Path:
    """Gives every party of a job folder a pinned key, and the one that the others connect to an address."""
    job = read_toml(folder / "job.toml")
    hub = "carol" if "carol" in job["parties"] else "club"
    job["parties"][hub]["address"] = f"tcp://127.0.0.1:{free_port()}"
    for name in job["parties"]:
        pair = make_keys()
        secret = folder / f"{name}.secret"
        secret.write_text(pair.secret + "\n", encoding="ascii")
        secret.chmod(0o600)
        job["parties"][name]["public_key"] = pair.public
        # The job's seed, which all know, so that a run between hosts can be compared with one in a process.
        site = read_toml(folder / f"{name}.toml") | {
            "secret_key": f"{name}.secret",
            "seed": job.get("seed", 0),
        }
        (folder / f"{name}.toml").write_text(tomli_w.dumps(site), encoding="utf-8")
    (folder / "job.toml").write_text(tomli_w.dumps(job), encoding="utf-8")
    return folder


def keep_people(folder: Path, kept: dict[str, Sequence[int]]) -> None:
    """Leaves these lines of each party's table, by number and in this order; the header stays."""
    for name, numbers in kept.items():
        header, *lines = (folder / f"{name}.csv").read_text(encoding="utf-8").splitlines()
        (folder / f"{name}.csv").write_text(
            "\n".join([header, *(lines[number] for number in numbers)]) + "\n", encoding="utf-8"
        )


def change_documents(folder: Path, changes: Mapping[str, Any]) -> None:
    """Changes the documents of a job folder: those of sites by name, else the job's."""
    for key, value in changes.items():
        path = folder / (f"{key}.toml" if (folder / f"{key}.toml").exists() else "job.toml")
        document = read_toml(path)
        _change(document, value if path.name != "job.toml" else {key: value})
        path.write_text(tomli_w.dumps(document), encoding="utf-8")


def _change(document: dict[str, Any], changes: dict[str, Any]) -> None:
    for key, value in changes.items():
        if value is None:
            document.pop(key, None)
        elif isinstance(value, dict) and isinstance(document.setdefault(key, {}), dict):
            _change(document[key], value)
        else:
            document[key] = value
