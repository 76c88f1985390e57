"""A recommendation as a job: what it scores, what each party keeps of it, and who learns what."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result as Output
from processes import Vfl
from small_jobs import give_keys
from small_ratings import CLUBS, small_recommender
from test_coordinator import weights

from parties.api import Result, run
from parties.assembly import assemble_folder
from parties.participant import RatingsPart, alone_sums, open_ratings, participant_part
from parties.summary import read_json
from vfl.journal import Silent
from vfl.learn.checkpoint import load_checkpoint
from vfl.ratings.factors import Factors, predict
from vfl.ratings.fixed import SUMS
from vfl.ratings.personal import PersonalMask
from vfl.ratings.scores import error_scores


@pytest.fixture(scope="module", params=["user", "item"])
def finished(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    place = tmp_path_factory.mktemp(f"by_{request.param}")
    folder = small_recommender(place / "job", by=request.param)
    return folder, run(folder, in_process=True, out=place / "runs")


def parts(folder: Path) -> dict[str, RatingsPart]:
    assembly = assemble_folder(folder)
    return {
        name: participant_part(assembly, name, open_ratings(assembly, assembly.sites[name]), None, Silent())
        for name in CLUBS
    }


def test_the_scores_are_those_of_what_was_kept_with_the_masks_added_back(
    finished: tuple[Path, Result],
) -> None:
    folder, result = finished
    missed = []
    for name, part in parts(folder).items():
        held = part.ratings
        assert held is not None
        best = load_checkpoint(result.folder / name, "best").tensors
        factors, mask = Factors(held.n_own, held.m, 2), PersonalMask("user_mean", held.n_own, held.m)
        factors.load_state_dict(best["factors"])
        mask.load_state_dict(best["mask"])
        test = held.test
        missed.append(test.value - predict(factors, mask, held.scale, test.own, test.shared))
        own = float(np.sqrt(np.mean(missed[-1] ** 2)))
        assert result.summary["own"][name]["rmse"] == pytest.approx(own, abs=1e-6)
    together = np.concatenate(missed)
    assert len(together) == result.rows["test"]
    assert result.metrics["test"]["rmse"] == pytest.approx(np.sqrt(np.mean(together**2)), abs=1e-6)
    assert result.metrics["test"]["mae"] == pytest.approx(np.mean(np.abs(together)), abs=1e-6)


def test_alone_is_the_sum_over_all_of_what_each_reaches_by_itself(finished: tuple[Path, Result]) -> None:
    folder, result = finished
    assembly, sums = assemble_folder(folder), []
    for part in parts(folder).values():
        assert part.ratings is not None
        mask = part.learners["mask"].network
        assert isinstance(mask, PersonalMask)
        found = alone_sums(assembly, part.ratings, mask, Silent())
        assert found is not None
        sums.append(found)
    assert result.alone["kind"] == "each participant"
    total = error_scores(SUMS.total([one[:3] for one in sums]))
    assert {name: result.alone["test"][name] for name in total} == total


def test_ratings_are_counted_at_each_participant_and_in_all(finished: tuple[Path, Result]) -> None:
    folder, result = finished
    lines = {name: len((folder / f"{name}.csv").read_text().splitlines()) - 1 for name in CLUBS}
    assert result.summary["table_rows"] == lines | {"carol": 0}
    counts = result.summary["ratings"]
    assert {name: sum(splits.values()) for name, splits in counts.items()} == lines
    assert result.rows == {split: sum(counts[name][split] for name in CLUBS) for split in counts["north"]}
    assert load_history(result)[-1]["epoch"] <= 4


def load_history(result: Result) -> list[dict[str, Any]]:
    lines = (result.folder / "carol" / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_each_owner_keeps_its_own_factors_and_its_mask_and_the_coordinator_the_shared_ones(
    finished: tuple[Path, Result],
) -> None:
    _, result = finished
    kept = {name: load_checkpoint(result.folder / name, "best").tensors for name in (*CLUBS, "carol")}
    assert {name: set(groups) for name, groups in kept.items()} == {
        "carol": {"shared"}, **{name: {"factors", "mask"} for name in CLUBS},
    }  # fmt: skip
    assert kept["carol"]["shared"]["own"].numel() == 0
    shared = {one["factors"]["shared"].numpy().tobytes() for name, one in kept.items() if name in CLUBS}
    assert shared == {kept["carol"]["shared"]["shared"].numpy().tobytes()}


def test_no_rating_and_no_id_is_in_the_coordinators_folder(finished: tuple[Path, Result]) -> None:
    _, result = finished
    for path in (result.folder / "carol").iterdir():
        content = path.read_bytes()
        assert b"u07" not in content, path
        assert b"f11" not in content, path
        assert b"Film no." not in content, path
    assert not list(result.folder.glob("*/predictions.csv"))


def test_the_coordinator_reports_and_says_who_learned_what(finished: tuple[Path, Result]) -> None:
    _, result = finished
    assert result.report == result.folder / "carol" / "report.html"
    page = result.report.read_text(encoding="utf-8")
    score = f"{result.metrics['test']['rmse']:.3f}"[:4]
    for words in ("recommendation", "RMSE", score, "Each participant", "each participant trains", "carol"):
        assert words.lower() in page.lower(), words
    assert 'class="plot score' in page
    record = read_json(result.folder / "carol" / "record.json")
    assert {entry["party"] for entry in record["learned"]} >= {*CLUBS, "carol"}
    assert record["score"] == "rmse"
    ranked = {"hr@10", "ndcg@10", "recall@10"} <= set(result.metrics["test"])
    assert ranked == (len(record["metrics"]["test"]) == 5)


@pytest.mark.parametrize("kind", ["leave-one-out", "time"])
def test_ratings_are_held_out_by_time_where_the_job_says_so(tmp_path: Path, kind: str) -> None:
    timed = {name: {"ratings": {"time": "at"}} for name in CLUBS}
    folder = small_recommender(tmp_path / "job", split={"kind": kind}, metric="ndcg@10", **timed)
    result = run(folder, in_process=True, out=tmp_path / "runs")
    assert 0 < result.metrics["test"]["ndcg@10"] <= 1
    members = {line.split(",")[0] for name in CLUBS for line in _lines(folder / f"{name}.csv")}
    if kind == "leave-one-out":
        assert result.rows["test"] == result.rows["valid"] == len(members)


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines()[1:]


@pytest.mark.parametrize(
    "options",
    [
        {"aggregation": "plain"},
        {"aggregation": "adaptive", "plain_below": 1.0},
        {"solver": "sgd", "batches": 2},
        {"mask": "content"},
        {"mask": "mf", "mask_rank": 2},
    ],
    ids=lambda options: "-".join(map(str, options.values())),
)
def test_every_way_to_mask_and_to_sum_is_a_job(tmp_path: Path, options: dict[str, Any]) -> None:
    folder = small_recommender(tmp_path / "job", protocols={"fedmmf": options}, epochs=2)
    result = run(folder, in_process=True, out=tmp_path / "runs")
    assert result.metrics["test"]["rmse"] < 1.5
    plain = [note for note in result.summary["notes"] if "in the clear" in note]
    assert bool(plain) == (options.get("aggregation") in ("plain", "adaptive"))
    best = {name: load_checkpoint(result.folder / name, "best").state["epoch"] for name in (*CLUBS, "carol")}
    assert len(set(best.values())) == 1


def test_four_hosts_align_their_users_and_end_as_one_process_does(
    tmp_path: Path, start: Callable[..., Vfl]
) -> None:
    folder = give_keys(small_recommender(tmp_path / "net", by="item", epochs=2, min_rows=4))
    _leave_out(folder, {"north": "u03", "east": "u05"})
    one = run(folder, overrides=["align=ids"], in_process=True, out=tmp_path / "one")
    hosts = {
        name: start("party", folder / "job.toml", folder / f"{name}.toml", "--json")
        for name in (*CLUBS, "carol")
    }
    assert {name: host.wait() for name, host in hosts.items()} == dict.fromkeys(hosts, 0), hosts["carol"].err
    assert weights(tmp_path / "runs" / "films") == weights(one.folder)
    said = json.loads(hosts["carol"].out)
    assert said["metrics"] == one.metrics
    assert "carol: epoch 2/2; validation rmse" in hosts["carol"].err
    assert json.loads(hosts["east"].out)["own"] == one.summary["own"]["east"]
    saved = load_checkpoint(one.folder / "south", "best").state["saved"]["shared_ids"]
    assert not {"u03", "u05"} & set(saved)


def _leave_out(folder: Path, users: dict[str, str]) -> None:
    for name, user in users.items():
        path = folder / f"{name}.csv"
        lines = [line for line in path.read_text().splitlines() if not line.startswith(f"{user},")]
        path.write_text("\n".join(lines) + "\n")


def test_check_reads_every_table_and_counts_the_bytes_of_a_step(
    tmp_path: Path, vfl: Callable[..., Output]
) -> None:
    folder = small_recommender(tmp_path / "job")
    found = json.loads(vfl("check", folder, "--json").stdout)
    assert [site["party"] for site in found["parties"]] == [*CLUBS, "carol"]
    assert [site["shared"] for site in found["parties"]] == [30, 30, 30, None]
    north = found["parties"][0]
    assert north["parameters"] == {"own factors": 14 * 3, "shared factors": 30 * 3}
    result = run(folder, in_process=True, out=tmp_path / "runs")
    bound = {row["party"]: row for row in found["traffic"]}
    trained = {
        name: sum(row["sent_bytes"] for row in result.ledger[name] if row["phase"] == "train")
        for name in CLUBS
    }
    assert all(
        0.5 * bound[name]["sent_in_all"] < trained[name] <= bound[name]["sent_in_all"] for name in trained
    )
    words = vfl("check", folder).stdout
    assert "north: 3 features of items; 30 items; ratings: " in words
    assert "bytes, at 30 items in common:" in words


def test_a_coordinator_alone_can_check_its_job(tmp_path: Path, vfl: Callable[..., Output]) -> None:
    folder = small_recommender(tmp_path / "job")
    done = vfl("check", folder / "job.toml", folder / "carol.toml")
    assert done.exit_code == 0, done.stderr
    assert "carol: no ratings" in done.stdout
