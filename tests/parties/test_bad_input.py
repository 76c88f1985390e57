"""Whatever is wrong with what a user gives: one line that names file, key, value and remedy."""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from small_jobs import people, small_job, write_csv


def fails(result: Result, exit_code: int, *words: str) -> None:
    """Checks that a command failed as documented: exit code, words, one line, no traceback."""
    assert result.exit_code == exit_code, result.output
    assert "Traceback" not in result.output
    notes = ("vfl: in the role of ", "vfl: what was trained so far is kept in ")
    complaint = [
        line for line in result.stderr.splitlines() if line.startswith("vfl: ") and not line.startswith(notes)
    ]
    assert len(complaint) == 1, result.stderr
    for word in words:
        assert word in complaint[0], complaint[0]
    assert result.stdout == ""


def trained(vfl: Callable[..., Result], folder: Path, *words: object) -> Result:
    return vfl("run", folder, "--in-process", *words)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"epoch": 3}, ["job.toml: epoch: unknown key; did you mean 'epochs'?"]),
        ({"epochs": "many"}, ["job.toml: epochs = 'many'", "integer"]),
        ({"epochs": True}, ["job.toml: epochs = True", "integer"]),
        ({"epochs": 0}, ["job.toml: epochs = 0", "greater than or equal to 1"]),
        ({"task": "binry"}, ["job.toml: task = 'binry'", "'binary'"]),
        ({"name": "../x"}, ["job.toml: name = '../x'"]),
        ({"protocol": "splitn"}, ["job.toml: protocol = 'splitn'", "did you mean 'splitnn'?"]),
        ({"protocols": {"splitnn": {"cat": "sum"}}}, ["protocols.splitnn: cat: unknown key", "'cut'"]),
        ({"protocols": {"splitn": {}}}, ["protocols.splitn", "did you mean 'splitnn'?"]),
        ({"protocols": {"splitnn": {"cut": "sum"}}}, ["cut = 'sum' needs one width", "bank 4"]),
        ({"metric": "aux"}, ["job.toml: metric = 'aux'", "did you mean 'auc'?"]),
        ({"optimizer": {"name": "Adm"}}, ["optimizer", "Adm", "Adam"]),
        ({"optimizer": {"name": "Adam", "lrr": 1}}, ["optimizer", "lrr", "lr"]),
        ({"schedule": {"name": "Step"}}, ["schedule", "Step"]),
        ({"parties": {"bank": {"role": "fature"}}}, ["parties.bank.role = 'fature'", "'feature'?"]),
        ({"parties": {"bank": {"width": None}}}, ["parties.bank.width: is missing"]),
        ({"parties": {"bank": {"width": 66000}}},
         ["job.toml: parties.bank.width = 66000, batch_size = 16", "256 MiB; choose a smaller width"]),
        ({"parties": {"bank": {"width": 1000}}, "batch_size": 100_000},
         ["parties.bank.width = 1000, batch_size = 100000", "100001 rows", "a smaller width or batch_size"]),
        ({"parties": {"club": {"role": "feature"}}}, ["exactly one holds the label"]),
        ({"parties": {"Bank!": {"role": "feature"}}}, ["'Bank!' is no party name", "a-z"]),
        ({"parties": {"job": {"role": "feature"}}}, ["'job' is a word of the job file itself"]),
        ({"parties": {"till": {"role": "feature", "width": 2}}}, ["till.toml: no such file"]),
        ({"parties": {"bank": {"address": "here:1"}}}, ["parties.bank.address = 'here:1'", "tcp://HOST:PORT"]),
        ({"parties": {"bank": {"address": "tcp://h:1"}}}, ["parties.bank.address", "only club"]),
        ({"split": {"valid": 0.5, "test": 0.5}}, ["split", "must be below 1"]),
        ({"batch_size": 54}, ["batch_size = 54", "53 training rows", "at most 53"]),
        ({"early_stopping": {"patience": 0}}, ["early_stopping.patience = 0"]),
        ({"classes": 3}, ["classes is for a multiclass task"]),
        ({"task": "multiclass"}, ["classes is missing"]),
        ({"bank": {"table": {"colums": []}}}, ["bank.toml: table.colums: unknown key", "'columns'"]),
        ({"bank": {"table": {"source": "bnk.csv"}}}, ["bank.toml: table: bnk.csv", "no such file"]),
        ({"bank": {"table": {"columns": ["incme"]}}}, ["bank.toml: table: bank.csv", "incme", "'income'"]),
        ({"bank": {"table": {"columns": []}}}, ["bank.toml: table.columns: is missing", "width 4"]),
        ({"bank": {"table": {"id": "person"}}}, ["bank.toml: table: bank.csv", "person"]),
        ({"bank": {"party": "shop"}}, ["bank.toml: party = 'shop'", "'bank'"]),
        ({"bank": {"trunk": {"preset": "mlp"}}}, ["bank.toml: trunk: belongs to the label party"]),
        ({"bank": {"bottom": {"preset": "mpl"}}}, ["bank.toml: bottom", "mpl", "mlp"]),
        ({"bank": {"bottom": {"preset": "mlp", "hiden": [3]}}}, ["bank.toml: bottom", "hiden", "hidden"]),
        ({"bank": {"bottom": {"module": "nothere:Net"}}}, ["bank.toml: bottom", "nothere:Net", "import"]),
        ({"bank": {"bottom": {"module": "torch.nn:Linear", "args": {"in_features": 2, "out_features": 5}}}},
         ["bank.toml: bottom", "gives width 5, the job says 4"]),
        ({"protocols": {"splitnn": {"cut": "nothere:Cut"}}}, ["protocols.splitnn.cut", "nothere:Cut"]),
        ({"bank": {"device": "cuda:99"}}, ["bank.toml", "cuda:99"]),
        ({"bank": {"device": "gpu"}}, ["bank.toml", "gpu"]),
        ({"club": {"label": None}}, ["club.toml: label: is missing"]),
        ({"club": {"label": {"column": "bys"}}}, ["club.toml: table: club.csv", "bys", "'buys'"]),
        ({"club": {"label": {"column": "buys", "positive": "maybe"}}}, ["maybe", "yes"]),
    ],
)  # fmt: skip
def test_a_document_that_cannot_be_used_is_one_line(
    vfl: Callable[..., Result], tmp_path: Path, changes: dict[str, Any], words: list[str]
) -> None:
    fails(trained(vfl, small_job(tmp_path / "job", **changes)), 2, *words)
    assert not list(tmp_path.glob("runs/*"))


def column(name: str, change: Callable[[list[Any]], list[Any]]) -> Callable[[dict[str, list[Any]]], None]:
    def apply(table: dict[str, list[Any]]) -> None:
        table[name] = change(table[name])

    return apply


@pytest.mark.parametrize(
    ("party", "change", "words"),
    [
        ("bank", column("income", lambda v: ["lots", *v[1:]]), ["income", "'lots'", "p000"]),
        ("bank", column("income", lambda v: ["nan", *v[1:]]), ["income", "p000", "missing"]),
        ("bank", column("income", lambda v: ["inf", *v[1:]]), ["income", "inf"]),
        ("bank", column("id", lambda v: [v[1], *v[1:]]), ["id", "p001"]),
        ("bank", column("id", lambda v: ["", *v[1:]]), ["id"]),
        ("bank", lambda table: table.update({name: [] for name in table}), ["no rows"]),
        ("club", column("buys", lambda v: ["yes"] * len(v)), ["buys", "yes"]),
        ("club", column("buys", lambda v: ["perhaps", *v[1:]]), ["buys", "perhaps"]),
        ("club", column("buys", lambda v: ["", *v[1:]]), ["buys", "p000"]),
    ],
    ids=["word", "nan", "infinite", "same id", "no id", "no rows", "one class", "three classes", "no label"],
)
def test_a_table_that_cannot_be_used_is_one_line(
    vfl: Callable[..., Result],
    tmp_path: Path,
    party: str,
    change: Callable[[dict[str, list[Any]]], None],
    words: list[str],
) -> None:
    folder = small_job(tmp_path / "job")
    wanted = {"bank": ["income", "debt"], "club": ["age", "buys"]}[party]
    table = {name: values for name, values in people().items() if name in ["id", *wanted]}
    change(table)
    write_csv(folder / f"{party}.csv", table)
    fails(trained(vfl, folder), 2, f"{party}.csv", *words)
    assert not list(tmp_path.glob("runs/*"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("epochs", "--set epochs: write it as key=value"),
        ("=3", "--set =3: write it as key=value"),
        ("epochs.x=1", "--set epochs.x=1: epochs is a value, not a table"),
        ("epochs=few", "job.toml: epochs = 'few'"),
        ("epochz=1", "job.toml: epochz: unknown key; did you mean 'epochs'?"),
        ("bank.devise=cpu", "bank.toml: devise: unknown key; did you mean 'device'?"),
        ("bank=1", "job.toml: bank: unknown key"),
    ],
)
def test_a_wrong_set_is_one_line(vfl: Callable[..., Result], tmp_path: Path, text: str, words: str) -> None:
    fails(trained(vfl, small_job(tmp_path / "job"), "--set", text), 2, words)


def test_files_that_are_no_documents_are_one_line(vfl: Callable[..., Result], tmp_path: Path) -> None:
    folder = small_job(tmp_path / "job")
    fails(trained(vfl, tmp_path / "nothing"), 2, "nothing: is no job folder", "check the path")
    (folder / "bank.toml").unlink()
    fails(trained(vfl, folder), 2, "bank.toml: no such file", "club.toml")
    fails(vfl("party", folder / "job.toml", folder), 2, "cannot be read (IsADirectoryError)")
    (folder / "job.toml").write_text("name = [unclosed")
    fails(trained(vfl, folder), 2, "job.toml: is no valid TOML", "line 1")
    (folder / "job.toml").write_bytes(b"name = '\xff'")
    fails(trained(vfl, folder), 2, "job.toml: cannot be read (UnicodeDecodeError)")


def test_several_faults_are_a_line_each(vfl: Callable[..., Result], tmp_path: Path) -> None:
    result = trained(vfl, small_job(tmp_path / "job", epochs="x", batch_size=-1))
    assert result.exit_code == 2
    assert [line[:20] for line in result.stderr.splitlines()] == [
        "vfl: job.toml: epoch",
        "vfl: job.toml: batch",
    ]


def test_a_users_module_that_fails_is_one_line(vfl: Callable[..., Result], tmp_path: Path) -> None:
    folder = small_job(tmp_path / "job", bank={"bottom": {"module": "ours:Net"}})
    (folder / "ours.py").write_text("raise RuntimeError('two\\nlines')\n")
    fails(trained(vfl, folder), 2, "bank.toml: bottom", "ours:Net", "RuntimeError: two lines")
    (folder / "ours.py").write_text("Nett = 3\n")
    fails(trained(vfl, folder), 2, "bank.toml: bottom", "no 'Net'", "Nett")


def test_a_failure_is_one_json_object_where_json_is_wanted(
    vfl: Callable[..., Result], tmp_path: Path
) -> None:
    folder = small_job(tmp_path / "job", epochs=0)
    for words in (["run", folder], ["run", folder, "--in-process"], ["check", folder]):
        result = vfl(*words, "--json")
        found = json.loads(result.stdout)
        assert found.keys() == {"status", "error", "exit_code"}
        assert (found["status"], found["exit_code"], result.exit_code) == ("failed", 2, 2)
        assert found["error"] in result.stderr


def test_debug_shows_where_an_error_came_from(vfl: Callable[..., Result], tmp_path: Path) -> None:
    result = vfl("run", small_job(tmp_path / "job", epochs=0), "--debug")
    assert result.exit_code == 2
    assert "Traceback" in result.stderr
    assert "ValidationError" in result.stderr


@contextmanager
def disk_of(n_bytes: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("n_bytes", [0, 100, 700, 4000])
def test_a_full_disk_leaves_no_run_folder(vfl: Callable[..., Result], tmp_path: Path, n_bytes: int) -> None:
    folder = small_job(tmp_path / "job")
    with disk_of(n_bytes):
        result = trained(vfl, folder)
    fails(result, 7, "cannot be written", "free")
    left = [path.name for path in tmp_path.glob("runs/*")]
    assert "small" not in left
    assert not any(name.startswith(".small") for name in left)


def test_a_full_disk_while_checkpointing_keeps_the_checkpoint_before(
    vfl: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from parties import events
    from vfl.learn.checkpoint import load_checkpoint

    monkeypatch.setattr(events, "_CHECKPOINT_EVERY_S", 0.0)
    write, written = events.save_checkpoint, []

    def save(folder: Path, *rest: object) -> Path:
        written.append(folder)
        if len(written) < 7:  # the first epoch of all three parties: the last state, and the best
            return write(folder, *rest)
        with disk_of(1000):
            return write(folder, *rest)

    monkeypatch.setattr(events, "save_checkpoint", save)
    result = trained(vfl, small_job(tmp_path / "job"))
    assert result.exit_code == 7, result.output
    assert "safetensors cannot be written (File too large): free space" in result.stderr
    assert "vfl: what was trained so far is kept in runs/small.stopped" in result.stderr
    stopped = tmp_path / "runs" / "small.stopped"
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["small.stopped"]
    for name in ("bank", "shop", "club"):
        assert load_checkpoint(stopped / name, "last").state["epoch"] == 1
        assert not list((stopped / name).glob("*.partial"))


@pytest.mark.parametrize("command", ["run", "party"])
def test_a_folder_that_cannot_be_written_to_is_named(
    vfl: Callable[..., Result], tmp_path: Path, command: str
) -> None:
    folder = small_job(tmp_path / "job", parties={"club": {"address": "tcp://127.0.0.1:*"}})
    (tmp_path / "taken").write_text("a file")
    words = [folder, "--in-process"] if command == "run" else [folder / "job.toml", folder / "club.toml"]
    fails(vfl(command, *words, "--out", "taken/here"), 7, "taken/here", "choose another folder with --out")


def key_of(vfl: Callable[..., Result], name: str, folder: Path) -> str:
    result = vfl("keys", name, "--dir", folder)
    assert result.exit_code == 0, result.output
    return str(result.stdout.split('"')[1])


def test_a_key_that_cannot_be_used_is_one_line(vfl: Callable[..., Result], tmp_path: Path) -> None:
    keys = {name: key_of(vfl, name, tmp_path / "keys") for name in ("bank", "shop", "club", "other")}
    parties: dict[str, Any] = {name: {"public_key": keys[name]} for name in ("bank", "shop", "club")}
    parties["club"]["address"] = "tcp://127.0.0.1:*"
    folder = tmp_path / "job"

    def attempt(secret: str | None, **changes: object) -> Result:
        small_job(folder, parties=parties | changes, bank={"secret_key": secret})
        return vfl("party", folder / "job.toml", folder / "bank.toml")

    fails(attempt(None), 2, "bank.toml: secret_key: is missing", "vfl keys bank")
    fails(
        attempt("../keys/nobody.secret"),
        2,
        "bank.toml: secret_key = '../keys/nobody.secret'",
        "vfl keys bank",
    )
    fails(attempt("../keys/other.secret"), 2, "belongs to public key", keys["other"], keys["bank"])
    (tmp_path / "keys" / "bad.secret").touch(0o600)
    fails(attempt("../keys/bad.secret"), 2, "'../keys/bad.secret': holds no secret key")
    (tmp_path / "keys" / "bank.secret").chmod(0o644)
    fails(attempt("../keys/bank.secret"), 2, "others on this machine can read it", "chmod 600")
    (tmp_path / "keys" / "bank.secret").chmod(0o600)
    one_less = {"shop": {"public_key": None}}
    fails(
        attempt("../keys/bank.secret", **one_less), 2, "parties.shop.public_key: is missing", "vfl keys shop"
    )
    same = {"shop": {"public_key": keys["bank"]}}
    fails(attempt("../keys/bank.secret", **same), 2, "two parties share one public_key")
    short = {"shop": {"public_key": "abc"}}
    fails(attempt("../keys/bank.secret", **short), 2, "parties.shop.public_key = 'abc'")


def test_clear_text_stays_on_this_machine(vfl: Callable[..., Result], tmp_path: Path) -> None:
    folder = small_job(tmp_path / "job", parties={"club": {"address": "tcp://192.0.2.1:5555"}})
    result = vfl("party", folder / "job.toml", folder / "bank.toml")
    fails(result, 2, "tcp://192.0.2.1:5555 leaves this machine in clear text", "--insecure")
    folder = small_job(tmp_path / "nowhere")
    result = vfl("party", folder / "job.toml", folder / "bank.toml")
    fails(result, 2, "parties.club.address: is missing", "tcp://HOST:PORT")


def test_vfl_keys_makes_a_pair_that_only_its_owner_reads(vfl: Callable[..., Result], tmp_path: Path) -> None:
    public = key_of(vfl, "bank", tmp_path / "k")
    assert (tmp_path / "k" / "bank.public").read_text() == f"{public}\n"
    assert os.stat(tmp_path / "k" / "bank.secret").st_mode & 0o777 == 0o600
    fails(vfl("keys", "bank", "--dir", "k"), 2, "bank.secret: exists already", "move it away")
    fails(vfl("keys", "../bank"), 2, "'../bank' is no party name")
    fails(vfl("keys", "bank", "--dir", "k/bank.public/x"), 7, "choose another folder with --dir")


def test_what_is_no_finished_run_is_one_line(vfl: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    fails(vfl("predict", "nothing"), 2, "nothing: no such run")
    fails(vfl("predict", "empty"), 2, "empty: is no finished run")
    fails(vfl("report", "empty"), 2, "empty: no record.json in it")
    fails(vfl("predict", "empty", "--table", "bank"), 2, "--table bank: write it as PARTY=FILE")
