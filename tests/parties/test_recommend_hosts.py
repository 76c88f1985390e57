"""`vfl recommend` between hosts: one participant asks, the others answer, and all end."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from processes import Vfl, all_gone
from small_jobs import SHORT, give_keys
from small_ratings import CLUBS, small_recommender
from test_bad_input import fails

from parties import recommending, trained
from parties.asking import Question
from parties.cli import cli
from parties.printing import print_recommendation
from parties.recommending import Recommendation, Recommended, recommend
from parties.single import run_predictor
from protocols.fedmmf import PREDICTORS
from protocols.fedmmf.messages import Ask, Askers, Best, Wish
from vfl.errors import PeerAborted, PeerLost
from vfl.session import Session
from vfl.wire.line import Line

NAMES = ("carol", *CLUBS)


@contextmanager
def hosts(folder: Path) -> Iterator[Callable[..., Vfl]]:
    started: list[Vfl] = []
    try:
        yield lambda *words: started.append(Vfl(*words, cwd=folder)) or started[-1]
    finally:
        for process in started:
            process.end()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trains one job twice, each time four hosts together: `one/films` and `two/films`."""
    place = tmp_path_factory.mktemp("clubs")
    job = give_keys(small_recommender(place / "job", by="item", timing=SHORT))
    with hosts(place) as start:
        for out in ("one", "two"):
            words = ("--out", place / out)
            parties = [start("party", job / "job.toml", job / f"{name}.toml", *words) for name in NAMES]
            assert [party.wait() for party in parties] == [0] * 4, parties[0].err
    return place


@pytest.fixture
def ask(start: Callable[..., Vfl], runs: Path) -> Callable[..., dict[str, Vfl]]:
    """Starts `vfl recommend` at each host of the first training, with words of its own."""

    def command(words: Mapping[str, tuple[object, ...]], *, at: str = "one/films") -> dict[str, Vfl]:
        folder = runs / at
        return {name: start("recommend", folder / name, *words.get(name, ())) for name in NAMES}

    return command


def ended(parties: Mapping[str, Vfl]) -> dict[str, int]:
    return {name: party.wait() for name, party in parties.items()}


def complaint(party: Vfl) -> str:
    assert "Traceback" not in party.err
    (line,) = [line for line in party.err.splitlines() if line.startswith("vfl: ")]
    return line


@pytest.mark.parametrize("asker", CLUBS)
def test_who_asks_hears_between_hosts_what_one_folder_says(
    runs: Path, ask: Callable[..., dict[str, Vfl]], asker: str
) -> None:
    parties = ask({asker: ("--user", " u07 ", "-n", 25, "--json"), "carol": ("--json",)})
    assert ended(parties) == dict.fromkeys(NAMES, 0), parties["carol"].err
    here = recommend(runs / "one" / "films", "u07", 25, party=asker).to_json()
    assert json.loads(parties[asker].out) == json.loads(json.dumps(here))
    assert {one["item"] for one in here["items"]} > {"f21", "f22"}
    assert {one["title"] for one in here["items"]} >= {"Film no. 21", "Film no. 22"}
    others = [name for name in CLUBS if name != asker]
    shown = {name: count_unrated(runs, name, "u07") for name in others}
    for name in others:
        words = (
            f"done; {asker} asked for 25 items for one of the common users, and was shown {shown[name]} of"
        )
        assert words in parties[name].err
        assert "u07" not in parties[name].err
        assert parties[name].out == ""
    assert json.loads(parties["carol"].out) == {
        "status": "finished", "party": "carol", "asked_by": asker, "n": 25, "shown": None,
    }  # fmt: skip
    assert "the question and the answers went through here" in parties["carol"].err


def count_unrated(runs: Path, name: str, user: str) -> int:
    """Counts a club's films that a user has not rated."""
    films = (runs / "job" / f"{name}_films.csv").read_text().splitlines()[1:]
    rated = [
        line for line in (runs / "job" / f"{name}.csv").read_text().splitlines() if line.startswith(user)
    ]
    return len(films) - len(rated)


@pytest.mark.parametrize(
    ("askers", "words"),
    [
        ((), {"carol": "north: asks for no user, and nobody else does", "north": "east: asks for no user"}),
        (
            ("north", "south"),
            {
                "carol": "north: asks for a user, and so does south: start all but one without --user",
                "east": "north: asks for a user, and so does south",
                "north": "south: asks for a user, and so does north",
                "south": "north: asks for a user, and so does south",
            },
        ),
    ],
    ids=["nobody", "two"],
)
def test_unless_one_participant_asks_everybody_is_told_who_does_and_what_to_do(
    ask: Callable[..., dict[str, Vfl]], askers: tuple[str, ...], words: dict[str, str]
) -> None:
    parties = ask({name: ("--user", "u07") for name in askers})
    assert ended(parties) == dict.fromkeys(NAMES, 3)
    for name, line in words.items():
        assert f"vfl: {line}" in complaint(parties[name])
    assert all("--user" in complaint(party) for party in parties.values())
    assert all("u07" not in party.err for party in parties.values())


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--user", "u4711"), "--user 'u4711': is not among the users that all participants share"),
        (("--user", "u07", "-n", "0"), "-n 0: ask for 1 to 100 items"),
        (("--user", "u07", "-n", "101"), "-n 101: ask for 1 to 100 items"),
    ],
)
def test_a_question_that_cannot_be_asked_ends_the_others_who_do_not_learn_of_whom(
    ask: Callable[..., dict[str, Vfl]], words: tuple[str, ...], why: str
) -> None:
    parties = ask({"east": words})
    assert ended(parties) == {"carol": 8, "north": 8, "east": 2, "south": 8}
    assert why in complaint(parties["east"])
    for name in ("carol", "north", "south"):
        assert "its own terminal says why (east)" in complaint(parties[name])
        assert "4711" not in parties[name].err


def test_a_table_that_has_changed_ends_all(
    runs: Path, ask: Callable[..., dict[str, Vfl]], restored: Callable[[Path], None]
) -> None:
    table = runs / "job" / "south.csv"
    restored(table)
    head, first, *rest = table.read_text().splitlines()
    user, film, stars, at = first.split(",")
    other = "5.0" if float(stars) < 5 else "1.0"
    table.write_text("\n".join([head, f"{user},{film},{other},{at}", *rest]) + "\n")
    parties = ask({"east": ("--user", "u07")})
    assert ended(parties) == {"carol": 8, "north": 8, "east": 8, "south": 2}
    assert "south.csv: holds other ratings than were trained on" in complaint(parties["south"])
    assert "its own table cannot be used" in complaint(parties["east"])


@pytest.fixture
def restored() -> Iterator[Callable[[Path], None]]:
    kept: dict[Path, bytes] = {}
    yield lambda path: kept.setdefault(path, path.read_bytes()) and None
    for path, content in kept.items():
        path.write_bytes(content)


def test_parts_of_two_trainings_are_refused(runs: Path, start: Callable[..., Vfl]) -> None:
    folders = {name: runs / ("two" if name == "north" else "one") / "films" / name for name in NAMES}
    words = {"east": ("--user", "u07")}
    parties = {name: start("recommend", folder, *words.get(name, ())) for name, folder in folders.items()}
    assert ended(parties) == dict.fromkeys(NAMES, 3)
    assert "carol: training session: yours '" in complaint(parties["north"])
    assert "north: training session: yours '" in complaint(parties["carol"])
    assert "a peer was refused (north)" in complaint(parties["east"])


@pytest.mark.parametrize(("here", "killed"), [("carol", "east"), ("north", "carol")])
def test_a_party_that_is_killed_ends_the_others(
    runs: Path, start: Callable[..., Vfl], monkeypatch: pytest.MonkeyPatch, here: str, killed: str
) -> None:
    folder = runs / "one" / "films"
    words: dict[str, Any] = {"east": ("--user", "u07")}
    parties = {
        name: start("recommend", folder / name, *words.get(name, ())) for name in NAMES if name != here
    }
    role = "coordinator" if here == "carol" else "participant"
    honest = PREDICTORS[role]

    async def kills(line: Line, **given: Any) -> Any:  # noqa: ANN401 - what the role returns
        parties[killed].signal(signal.SIGKILL)  # it has joined, and waits
        return await honest(line, **given)

    monkeypatch.setitem(PREDICTORS, role, kills)
    with pytest.raises(PeerLost, match=f"{killed}: the connection was lost"):
        run_predictor(trained.load_trained(folder / here), lambda event: None)
    others = {name: party for name, party in parties.items() if name != killed}
    assert ended(others) == dict.fromkeys(others, 4)
    assert all_gone([party.pid for party in parties.values()], 5.0)
    assert all(killed in complaint(party) for party in others.values())


LIES: dict[str, tuple[Any, list[str]]] = {
    "asks twice": ([Wish(True), Wish(True)], ["vfl: north: said Wish where Ask"]),
    "asks for too much": ([Wish(True), Ask(3, 10**6)], ["vfl: north: asks for 1000000 items of user 3"]),
    "tells who asks": ([Askers(("south",))], ["vfl: north: said Askers where Wish"]),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_participant_that_lies_is_blamed_and_everybody_ends(
    runs: Path, start: Callable[..., Vfl], monkeypatch: pytest.MonkeyPatch, lie: str
) -> None:
    said, words = LIES[lie]

    async def liar(line: Line, *, session: Session, **_: object) -> None:
        for message in said:
            await line.say(session.hub, message)
        await line.hear(session.hub, Askers)
        await line.hear(session.hub, Best)

    monkeypatch.setitem(PREDICTORS, "participant", liar)
    folder = runs / "one" / "films"
    honest = {name: start("recommend", folder / name) for name in NAMES if name != "north"}
    with pytest.raises(PeerAborted, match="broke the protocol"):
        run_predictor(trained.load_trained(folder / "north"), lambda event: None, Question("u07", 3))
    assert ended(honest) == dict.fromkeys(honest, 6)
    assert all(word in complaint(honest["carol"]) for word in words)


@pytest.mark.parametrize(
    ("where", "options", "words"),
    [
        ("north", ["-n", "5"], ["-n 5: who asks says how many", "--user ID"]),
        ("north", ["--user", "u07", "--party", "north"], ["--party north", "leave --party out"]),
        ("carol", ["--user", "u07"], ["carol is the coordinator and has no users", "leave --user out"]),
        (".", [], ["--user: is missing", "--user ID"]),
        (".", ["-n", "0", "--user", "u07"], ["-n 0: ask for 1 to 100 items"]),
    ],
)
def test_what_cannot_be_asked_is_known_before_anybody_is_reached(
    runs: Path, monkeypatch: pytest.MonkeyPatch, where: str, options: list[str], words: list[str]
) -> None:
    monkeypatch.setattr(recommending, "run_predictor", None)
    folder = runs / "one" / "films" / where
    result = CliRunner().invoke(cli, ["recommend", str(folder), *options])
    fails(result, 2, *words)
    assert result.stderr.count("\n") == 1


def test_what_others_call_their_films_does_not_reach_the_terminal_as_commands(
    capsys: pytest.CaptureFixture[str],
) -> None:
    items = [Recommended("f\x1b[2J", "Film\r\x07 no. 1", 4.0), Recommended("f2", "Caf\xe9\xa0noir", 3.0)]
    print_recommendation(Recommendation("u07", "north", items, 3))
    printed = capsys.readouterr().out
    assert "Film�� no. 1  (f�[2J)" in printed
    assert "Caf\xe9\xa0noir" in printed
