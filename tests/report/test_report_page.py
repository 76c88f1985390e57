from __future__ import annotations

import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vfl.errors import DataError
from vfl.report.page import Record, render_report

VOID = {"meta", "link", "br", "img", "input", "hr"}


class Reader(HTMLParser):
    """Reads a page as a program would: elements, visible text, and the numbers by their hooks."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.numbers: dict[str, str] = {}
        self.exact: dict[str, float] = {}
        self._open: list[tuple[str, str | None]] = []
        self.feed(page)
        self.close()
        assert not self._open, "every element is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.elements.append((tag, attributes))
        hook = attributes.get("data-metric")
        if hook is not None:
            assert hook not in self.numbers, f"{hook} stands twice"
            self.numbers[hook] = ""
        inside = hook or (self._open[-1][1] if self._open else None)
        if tag == "data" and inside:
            self.exact[inside] = float(attributes["value"] or "nan")
        if tag not in VOID:
            self._open.append((tag, inside))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        tag, hook = self._open[-1] if self._open else ("", None)
        if tag != "style":
            self.text += data
        if hook is not None:
            self.numbers[hook] += data.strip()

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(params=["blank", "binary", "multiclass", "regression"])
def any_record(request: pytest.FixtureRequest) -> Record:
    record: Record = request.getfixturevalue(request.param)
    return record


def test_the_numbers_on_the_page_are_the_records(binary: Record) -> None:
    page = Reader(render_report(binary))
    alone, together = binary["alone"], binary["metrics"]["test"]
    assert alone is not None
    for key, value in together.items():
        assert page.exact[f"test.{key}"] == page.exact[f"together.{key}"] == value
        assert page.exact[f"alone.{key}"] == alone["test"][key]
        assert page.exact[f"difference.{key}"] == value - alone["test"][key]
        assert page.numbers[f"test.{key}"] == f"{value:.3f}"
    assert page.exact["valid.auc"] == 0.9912345
    assert page.numbers["valid.auc"] == "0.991"
    assert page.numbers["valid.accuracy"] == "–"
    assert page.numbers["best_epoch"] == "7"
    assert page.numbers["seed"] == "3"
    assert [page.exact[f"rows.{part}"] for part in ("train", "valid", "test")] == [341, 114, 120]


def test_the_ledger_adds_up(binary: Record) -> None:
    page = Reader(render_report(binary))
    sent = 812_345 + 1234 + 512
    assert page.exact["ledger.mean.train.sent_bytes"] == 812_345
    assert page.numbers["ledger.mean.train.sent_bytes"] == "793\u00a0KiB"
    assert page.exact["ledger.total.sent_bytes"] == sent
    assert page.exact["ledger.total.received_bytes"] == 2 * sent
    assert page.exact["ledger.total.received_messages"] == 33
    assert page.exact["ledger.row_bytes"] == 3 * sent / 341
    assert page.exact["ledger.row_epoch_bytes"] == pytest.approx(3 * sent / 341 / 9)
    assert page.exact["waited.mean"] == 1.2331
    assert page.numbers["waited.worst"] == "41\u00a0ms"
    assert page.exact["waited.total"] == pytest.approx(1.2742)


def test_a_peer_without_traffic_is_still_waited_for(binary: Record) -> None:
    binary["waited_s"]["late"] = 30.0
    page = Reader(render_report(binary))
    assert "no traffic" in page.text
    assert page.numbers["waited.late"] == "30.0\u00a0s"


def test_the_first_sentence_tells_the_run(binary: Record, multiclass: Record, blank: Record) -> None:
    auc = binary["metrics"]["test"]["auc"]
    said = f"Three parties trained one model in 6.1\u00a0s: test AUC {auc:.3f} together, 0.871 alone."
    assert said in render_report(binary)
    assert "together, 0.333 by always naming the commonest class." in render_report(multiclass)
    assert "The parties trained one model in 0\u00a0s." in render_report(blank)


def test_a_run_that_did_not_finish_says_so_at_the_top(binary: Record) -> None:
    binary["status"] = "lost"
    page = Reader(render_report(binary)).text
    assert "Three parties trained for 6.1\u00a0s, then the run ended as “lost”; test AUC" in page
    assert "This run did not finish (status: lost)." in page


@pytest.mark.parametrize(
    ("alone", "said", "verdict"),
    [
        (60.0, "Joining makes it better by 40.00.", "better"),
        (15.0, "Joining makes it worse by 5.000.", "worse"),
        (20.0, "Joining changes nothing.", "equal"),
    ],
)
def test_an_error_that_falls_is_a_gain(regression: Record, alone: float, said: str, verdict: str) -> None:
    regression["alone"] = {"kind": "mean", "test": {"rmse": alone}}
    page = Reader(render_report(regression))
    assert said in page.text
    assert re.findall("better$|worse$|equal$", page.text, re.MULTILINE)[:1] == [verdict]


def test_the_score_that_decides_comes_first(regression: Record) -> None:
    regression["score"] = "r2"
    hooks = [h for h in Reader(render_report(regression)).numbers if h.startswith("test.")]
    assert hooks == ["test.r2", "test.rmse", "test.mae"]


def test_a_score_nobody_knows_is_shown_without_a_verdict(blank: Record) -> None:
    blank["metrics"] = {"test": {"top_5": 0.75}}
    blank["alone"] = {"kind": "a coin", "test": {"top_5": 0.5}}
    blank["score"] = "top_5"
    page = Reader(render_report(blank))
    assert page.numbers["difference.top_5"] == "+0.250"
    assert "top 5 0.750 together, 0.500 by a coin" in page.text
    assert not page.all("svg")


@pytest.mark.parametrize("part", list(Record.__annotations__))
def test_a_page_is_made_whatever_is_missing(binary: Record, blank: Record, part: str) -> None:
    if part in blank and part != "task":
        binary[part] = blank[part]  # type: ignore[literal-required]
    Reader(render_report(binary))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_score_that_is_not_finite_is_a_dash(binary: Record, bad: float) -> None:
    binary["metrics"]["test"]["auc"] = bad
    binary["history"][3]["valid"]["auc"] = bad
    binary["history"][4]["loss"] = bad
    page = Reader(render_report(binary))
    assert page.numbers["test.auc"] == page.numbers["difference.auc"] == "–"
    assert "What the partners add is not known" in page.text


def test_without_validation_rows_only_the_training_loss_is_drawn(binary: Record) -> None:
    binary["rows"]["valid"] = 0
    binary["metrics"]["valid"] = {}
    binary["best_epoch"] = None
    for epoch in binary["history"]:
        epoch["valid"] = {}
    page = Reader(render_report(binary))
    assert [svg["class"] for svg in page.all("svg")] == [
        "plot comparison",
        "plot loss",
        "plot roc",
        "plot calibration",
    ]
    assert "were kept" not in page.text


@pytest.mark.parametrize(
    ("truth", "output", "said"),
    [
        ([], [], "There are no test rows to draw."),
        ([1, 1], [0.5, 0.6], "All test rows are of one class"),
        ([0, 1], [math.nan, 0.6], "some outputs are not finite"),
    ],
)
def test_what_cannot_be_drawn_is_explained(
    binary: Record, truth: list[int], output: list[float], said: str
) -> None:
    binary["test"] = {"truth": np.array(truth), "output": np.array(output)}
    page = Reader(render_report(binary))
    assert said in page.text
    assert [svg["class"] for svg in page.all("svg")] == ["plot comparison", "plot loss", "plot score"]


def test_each_task_gets_the_figures_that_suit_it(
    binary: Record, multiclass: Record, regression: Record
) -> None:
    drawn = [
        [svg["class"] for svg in Reader(render_report(r)).all("svg")]
        for r in (binary, multiclass, regression)
    ]
    assert drawn[0] == [f"plot {x}" for x in ("comparison", "loss", "score", "roc", "calibration")]
    assert drawn[1] == [f"plot {x}" for x in ("comparison", "loss", "score", "confusion")]
    assert drawn[2] == [f"plot {x}" for x in ("comparison", "predictions")]


def test_the_commonest_mistakes_are_listed(multiclass: Record) -> None:
    truth = np.array([0, 0, 0, 1, 2])
    multiclass["test"] = {"truth": truth, "output": np.eye(3)[[1, 1, 0, 1, 0]]}
    lines = Reader(render_report(multiclass)).text.split("\n")
    assert [line for line in lines if re.fullmatch("[a-z]+[0-9]{2}", line)] == [
        "setosaversicolor23",
        "virginicasetosa11",
    ]


def test_too_many_classes_are_listed_and_not_drawn(multiclass: Record) -> None:
    multiclass["classes"] = []
    multiclass["test"] = {"truth": np.arange(60), "output": np.eye(60)[(np.arange(60) + 1) % 60]}
    page = Reader(render_report(multiclass))
    assert "60 classes are too many" in page.text
    assert "plot confusion" not in [svg["class"] for svg in page.all("svg")]
    assert "The commonest mistakes" in page.text


def test_whoever_learns_is_listed_even_who_took_no_part(binary: Record) -> None:
    text = Reader(render_report(binary)).text
    assert "onlooker" in text
    assert "the size and time of every message" in text


def test_no_address_and_no_script_is_on_the_page(any_record: Record) -> None:
    source = render_report(any_record)
    page = Reader(source)
    assert "http:" not in source
    assert "https:" not in source
    assert not {"script", "iframe", "object", "img", "image", "a", "form"} & {tag for tag, _ in page.elements}
    for _, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on")]
        assert all((attributes.get(name) or "#").startswith(("#", "data:")) for name in ("href", "src"))
    assert "@import" not in source
    policy = [m["content"] for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'; img-src data:"]


def test_ids_are_unique_and_labels_point_at_them(any_record: Record) -> None:
    page = Reader(render_report(any_record))
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert len(ids) == len(set(ids))
    assert {a["aria-labelledby"] for a in page.all("section")} <= set(ids)


def test_the_page_can_be_read_aloud(any_record: Record) -> None:
    page = Reader(render_report(any_record))
    assert page.all("html") == [{"lang": "en"}]
    assert len(page.all("h1")) == 1
    assert all(head.get("scope") in {"col", "row", "rowgroup"} for head in page.all("th"))
    assert len(page.all("caption")) == len(page.all("table"))
    drawings = [a for a in page.all("div") if a.get("role") == "img"]
    assert len(drawings) == len(page.all("svg"))
    assert all(len(a["aria-label"] or "") > 20 for a in drawings)


def test_the_same_record_gives_the_same_page(any_record: Record) -> None:
    assert render_report(any_record) == render_report(any_record)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.text(min_size=1, max_size=30)
    | st.sampled_from(["<script>alert(1)</script>", '" onload="x', "{{7*7}}"])
)
def test_no_name_can_write_html(binary: Record, name: str) -> None:
    binary.update(run=name, protocol=name, status=name, started=name, positive=name, versions={name: name})
    binary["classes"] = [name, name]
    binary["parties"] = [{"name": name, "role": name, "width": 1}]
    binary["learned"] = [{"party": name, "learns": name}]
    binary["alone"] = {"kind": name, "test": {name: 0.5}}
    binary["ledger"][0]["peer"] = binary["ledger"][0]["phase"] = name
    binary["waited_s"] = {name: 1.0}
    binary["history"], binary["metrics"], binary["test"] = (
        [],
        {},
        None,
    )  # the figures' names are tested beside the figures
    page = Reader(render_report(binary))
    allowed = (
        "html head meta link title style body main header section div p h1 h2 span small b time dl dt dd data"
    )
    tables = "table caption thead tbody tfoot tr th td"
    assert {tag for tag, _ in page.elements} <= set(allowed.split()) | set(tables.split())
    assert not [a for _, attributes in page.elements for a in attributes if a.startswith("on")]


def test_a_hostile_class_name_stays_text_in_the_figure(multiclass: Record) -> None:
    multiclass["classes"] = ["<script>x</script>", "</svg><b>", "c"]
    source = render_report(multiclass)
    Reader(source)
    assert "<script" not in source
    assert "&lt;/svg&gt;&lt;b&gt;" in source


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"task": "ranking"}, "report: task 'ranking' is unknown; use one of binary, multiclass, regression"),
        (
            {"test": {"truth": np.zeros(3), "output": np.zeros(2)}},
            r"test.truth has shape \[3\] and test.output \[2\]; a binary run needs \[n\] and \[n\]",
        ),
        (
            {"test": {"truth": np.zeros(3), "output": np.full(3, 1.5)}},
            "test.output holds 1.5; a binary run needs probabilities in 0 to 1",
        ),
        (
            {"task": "multiclass", "test": {"truth": np.zeros(3), "output": np.zeros((3, 5))}},
            "classes names 2, but test.output has 5 columns",
        ),
    ],
)
def test_a_record_that_contradicts_itself_is_refused(binary: Record, change: Record, said: str) -> None:
    binary.update(change)
    with pytest.raises(DataError, match=said) as caught:
        render_report(binary)
    assert "\n" not in str(caught.value)
