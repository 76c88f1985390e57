"""Small jobs, several sides, each a process: what every side says, and with which exit code it ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomli_w
import torch
from processes import Vfl, all_gone
from small_jobs import NAMES, on_the_network, small_job

from parties.api import Result, run
from parties.assembly import load_placed_site
from parties.single import run_party
from parties.summary import read_json
from protocols.splitnn import ROLES, Embedding, EmbeddingGrad
from vfl.config.load import load_job, read_toml
from vfl.errors import PeerAborted
from vfl.learn.checkpoint import load_checkpoint
from vfl.session import Session
from vfl.wire.line import Line
from vfl.wire.messages import Message
from vfl.wire.zeromq import make_keys

FOR_EVER = 100_000


@pytest.fixture
def network(tmp_path: Path) -> Callable[..., Path]:
    return lambda **changes: on_the_network(tmp_path / "net", **changes)


@pytest.fixture
def start_all(start: Callable[..., Vfl]) -> Callable[..., dict[str, Vfl]]:
    def command(folder: Path, *words: object) -> dict[str, Vfl]:
        return {name: start("party", folder / "job.toml", folder / f"{name}.toml", *words) for name in NAMES}

    return command


def training(parties: dict[str, Vfl]) -> None:
    parties["club"].saw("club: epoch")


def ended(parties: dict[str, Vfl], patience_s: float = 60.0) -> dict[str, int]:
    return {name: party.wait(patience_s) for name, party in parties.items()}


def weights(folder: Path, name: str) -> dict[str, object]:
    tensors = load_checkpoint(folder / name, "best").tensors
    return {f"{group}/{key}": t.tolist() for group, found in tensors.items() for key, t in found.items()}


def booked(ledger: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Leaves out waiting, and the handshake, in which the keys of the run are compared."""
    return [row | {"waited_s": 0} for row in ledger if row["phase"] != "handshake"]


@pytest.fixture(scope="session")
def in_process(tmp_path_factory: pytest.TempPathFactory) -> Result:
    folder = tmp_path_factory.mktemp("together")
    return run(small_job(folder / "job"), in_process=True, out=folder / "runs")


def test_vfl_run_gives_the_same_weights_as_one_process(
    start: Callable[..., Vfl], tmp_path: Path, in_process: Result
) -> None:
    running = start("run", small_job(tmp_path / "my jöb"), "--out", "r ü n s", "--json", env={"LC_ALL": "C"})
    assert running.wait() == 0, running.err
    summary = json.loads(running.out)
    folder = tmp_path / "r ü n s" / "small"
    for name in NAMES:
        assert weights(folder, name) == weights(in_process.folder, name)
    assert summary["metrics"] == in_process.metrics
    for name, counts in summary["bytes"].items():
        assert booked(read_json(folder / name / "ledger.json")) == booked(in_process.ledger[name])
        rows = read_json(folder / name / "ledger.json")
        assert counts == {way: sum(row[f"{way}_bytes"] for row in rows) for way in ("sent", "received")}
    assert Path(tmp_path, summary["report"]).is_file()
    assert {path.name for path in folder.parent.iterdir()} == {"small"}


def test_three_hosts_train_the_same_network_and_predict_with_it_while_a_stranger_knocks(
    network: Callable[..., Path], start: Callable[..., Vfl], tmp_path: Path, in_process: Result
) -> None:
    folder = network()
    stranger = small_job(tmp_path / "stranger")
    for name in ("job", "bank"):
        (stranger / f"{name}.toml").write_text((folder / f"{name}.toml").read_text())
    pair = make_keys()
    (stranger / "bank.secret").write_text(pair.secret)
    (stranger / "bank.secret").chmod(0o600)
    job = read_toml(stranger / "job.toml")
    job["parties"]["bank"]["public_key"] = pair.public  # it says so, and the others know better
    (stranger / "job.toml").write_text(tomli_w.dumps(job))

    club = start("party", folder / "job.toml", folder / "club.toml", "--json")
    knocks = start("party", stranger / "job.toml", stranger / "bank.toml")
    assert knocks.wait() == 3
    assert knocks.err.startswith("vfl: club: ")
    assert "key" in knocks.err
    club.saw("turned away a stranger: " + pair.public)
    club.saw("waiting for bank and shop")
    rest = [start("party", folder / "job.toml", folder / f"{name}.toml") for name in ("shop", "bank")]
    assert [party.wait() for party in (club, *rest)] == [0, 0, 0], club.err
    run_folder = tmp_path / "runs" / "small"
    for name in NAMES:
        assert weights(run_folder, name) == weights(in_process.folder, name)

    rest = [start("predict", run_folder / name) for name in ("shop", "bank")]
    club = start("predict", run_folder / "club", "--out", "p.csv")
    assert [party.wait() for party in (club, *rest)] == [0, 0, 0], club.err
    assert len((tmp_path / "p.csv").read_text().splitlines()) == 81
    assert "the predictions are at the label party" in rest[0].err


def test_another_job_is_refused_on_every_side_naming_key_and_both_values(
    network: Callable[..., Path], start: Callable[..., Vfl]
) -> None:
    folder = network()
    bank = start("party", folder / "job.toml", folder / "bank.toml", "--set", "seed=7")
    shop, club = (start("party", folder / "job.toml", folder / f"{name}.toml") for name in NAMES[1:])
    assert [party.wait() for party in (bank, shop, club)] == [3, 3, 3]
    assert "club: seed: yours 7, theirs 0" in bank.err
    assert "bank: seed: yours 0, theirs 7" in club.err
    assert "a peer was refused (bank)" in shop.err
    assert not list((folder.parent / "runs").iterdir())


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (lambda lines: lines[:-1], "rows: yours 80, theirs 79"),
        (lambda lines: [*lines[:-1], "x9,1,2"], "not the same ids"),
    ],
    ids=["fewer", "others"],
)
def test_misaligned_ids_are_refused_on_every_side(
    network: Callable[..., Path],
    start_all: Callable[..., dict[str, Vfl]],
    rows: Callable[[list[str]], list[str]],
    words: str,
) -> None:
    folder = network(align="given")
    table = folder / "bank.csv"
    table.write_text("\n".join(rows(table.read_text().splitlines())) + "\n")
    parties = start_all(folder)
    assert ended(parties) == {"bank": 3, "shop": 3, "club": 3}
    assert words in parties["club"].err
    assert "Traceback" not in parties["bank"].err + parties["shop"].err + parties["club"].err


def test_a_killed_party_ends_the_others_within_five_seconds(
    network: Callable[..., Path], start_all: Callable[..., dict[str, Vfl]]
) -> None:
    folder = network(epochs=FOR_EVER)
    parties = start_all(folder)
    training(parties)
    parties["bank"].signal(signal.SIGKILL)
    others = {name: parties[name] for name in ("club", "shop")}
    assert all_gone([party.pid for party in others.values()], 5.0)
    assert ended(others) == {"club": 4, "shop": 4}
    assert "bank: the connection was lost" in parties["club"].err
    assert "a peer was lost (bank)" in parties["shop"].err
    assert "kept in runs/small.stopped" in parties["club"].err
    assert not (folder.parent / "runs" / "small").exists()


def test_a_silent_party_ends_the_others(
    network: Callable[..., Path], start_all: Callable[..., dict[str, Vfl]]
) -> None:
    parties = start_all(network(epochs=FOR_EVER))
    training(parties)
    parties["bank"].signal(signal.SIGSTOP)
    others = {name: parties[name] for name in ("club", "shop")}
    assert set(ended(others).values()) <= {4, 5}
    assert "bank" in parties["club"].err.splitlines()[-2]


def test_ctrl_c_at_one_party_ends_all(
    network: Callable[..., Path], start_all: Callable[..., dict[str, Vfl]]
) -> None:
    folder = network(epochs=FOR_EVER)
    parties = start_all(folder, "--json")
    training(parties)
    parties["shop"].signal(signal.SIGINT)
    assert ended(parties) == {"bank": 8, "shop": 130, "club": 8}
    assert "it was interrupted (shop)" in parties["bank"].err
    assert '"status": "failed"' in parties["shop"].out
    assert parties["shop"].out.count("\n") == 1


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (EmbeddingGrad(0, torch.zeros(1)), "EmbeddingGrad"),
        (Embedding(0, 0, torch.zeros(16, 4)), "the tables are not aligned"),
    ],
    ids=["kind", "rows"],
)
def test_a_wrong_message_ends_every_side_and_is_blamed_on_its_sender(
    network: Callable[..., Path],
    start: Callable[..., Vfl],
    monkeypatch: pytest.MonkeyPatch,
    message: Message,
    words: str,
) -> None:
    async def liar(line: Line, *, session: Session, **_: object) -> None:
        await line.say(session.label, message)
        await line.hear(session.label, EmbeddingGrad)

    monkeypatch.setitem(ROLES, "feature", liar)
    folder = network()
    honest = [start("party", folder / "job.toml", folder / f"{name}.toml") for name in ("shop", "club")]
    job, placed = load_job(folder / "job.toml"), load_placed_site(folder / "bank.toml")
    with pytest.raises(PeerAborted, match="a peer broke the protocol") as caught:
        run_party(job, placed, folder / "runs", lambda event: None)
    assert caught.value.exit_code == 6
    assert [party.wait() for party in honest] == [6, 6]
    complaint = next(line for line in honest[1].err.splitlines() if line.startswith("vfl: bank: "))
    assert words in complaint
    assert "broke the protocol (bank)" in honest[0].err


def test_a_party_that_cannot_read_its_table_tells_the_others(
    network: Callable[..., Path], start: Callable[..., Vfl]
) -> None:
    folder = network()
    (folder / "bank.csv").unlink()
    parties = {
        name: start("party", folder / "job.toml", folder / f"{name}.toml") for name in ("shop", "club")
    }
    parties["club"].saw("waiting for bank (")
    parties["bank"] = start("party", folder / "job.toml", folder / "bank.toml")
    assert ended(parties) == {"bank": 2, "shop": 8, "club": 8}
    assert "bank.toml: table: bank.csv" in parties["bank"].err
    assert "its own table cannot be used" in parties["club"].err


def test_a_party_that_never_comes_is_waited_for_no_longer_than_the_job_says(
    network: Callable[..., Path], start: Callable[..., Vfl]
) -> None:
    folder = network()
    club = start("party", folder / "job.toml", folder / "club.toml", "--set", "timing.join_s=2.5")
    assert club.wait() == 5
    assert "waiting for bank and shop" in club.err
    assert "bank and shop: has not joined for 2.5 s" in club.err


def test_a_port_in_use_is_named(network: Callable[..., Path], start: Callable[..., Vfl]) -> None:
    folder = network()
    address = read_toml(folder / "job.toml")["parties"]["club"]["address"]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", int(address.rpartition(":")[2])))
        taken.listen()
        club = start("party", folder / "job.toml", folder / "club.toml")
        assert club.wait() == 2
    assert f"vfl: job: parties.club: address = '{address}': " in club.err
    assert "the port is in use; end the other process or choose another port" in club.err


@pytest.mark.skipif(sys.platform != "linux", reason="finds child processes in /proc")
@pytest.mark.parametrize("end", ["Ctrl-C", "a child is killed", "the parent is killed"])
def test_however_vfl_run_ends_no_process_is_left(start: Callable[..., Vfl], tmp_path: Path, end: str) -> None:
    running = start("run", small_job(tmp_path / "job", epochs=FOR_EVER, parties={"shop": None}), "--json")
    running.saw("club: epoch")
    children = running.children()
    assert len(children) == 2
    if end == "a child is killed":
        os.kill(children[0], signal.SIGKILL)
    else:
        running.signal(signal.SIGINT if end == "Ctrl-C" else signal.SIGKILL)
    assert all_gone([running.pid, *children], 10.0)
    code = running.wait()
    assert code == {"Ctrl-C": 130, "a child is killed": 4, "the parent is killed": -9}[end]
    if end != "the parent is killed":
        assert running.out.count("\n") == 1
        assert "Traceback" not in running.err
        assert [path.name for path in (tmp_path / "runs").iterdir()] == ["small.stopped"]
    if end == "a child is killed":
        assert "bank: its process was killed (SIGKILL)" in running.err
    assert not (tmp_path / "runs" / "small").exists()
