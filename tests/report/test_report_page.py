from __future__ import annotations

import math
import re
from collections.abc import Callable
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vfl.errors import DataError
from vfl.report import page
from vfl.report.figures import Drawing
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


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts an empty element in the place of every figure, where a test is about the words around them."""

    def stand_in(name: str) -> Callable[..., Drawing]:
        # draw_curves is told its name; the others have one.
        return lambda *args: Drawing(
            f'<svg class="plot {name or args[0]}"></svg>', "Stands in for a figure.", 352
        )

    for name in ("comparison", "curves", "roc", "calibration", "confusion", "predictions"):
        monkeypatch.setattr(page, f"draw_{name}", stand_in("" if name == "curves" else name))


@pytest.fixture(params=["blank", "binary", "multiclass", "regression"])
def whole(request: pytest.FixtureRequest, pages: dict[str, str]) -> str:
    return pages[request.param]


@pytest.mark.usefixtures("plain")
def test_the_numbers_on_the_page_are_the_records(binary: Record) -> None:
    shown = Reader(render_report(binary))
    alone, together = binary["alone"], binary["metrics"]["test"]
    assert alone is not None
    for key, value in together.items():
        assert shown.exact[f"test.{key}"] == shown.exact[f"together.{key}"] == value
        assert shown.exact[f"alone.{key}"] == alone["test"][key]
        assert shown.exact[f"difference.{key}"] == value - alone["test"][key]
        assert shown.numbers[f"test.{key}"] == f"{value:.3f}"
    assert shown.exact["valid.auc"] == 0.9912345
    assert shown.numbers["valid.auc"] == "0.991"
    assert shown.numbers["valid.accuracy"] == "–"
    assert shown.numbers["best_epoch"] == "7"
    assert shown.numbers["seed"] == "3"
    assert [shown.exact[f"rows.{part}"] for part in ("train", "valid", "test")] == [341, 114, 120]


@pytest.mark.usefixtures("plain")
def test_the_ledger_adds_up(binary: Record) -> None:
    shown = Reader(render_report(binary))
    sent = 812_345 + 1234 + 512
    assert shown.exact["ledger.mean.train.sent_bytes"] == 812_345
    assert shown.numbers["ledger.mean.train.sent_bytes"] == "793\u00a0KiB"
    assert shown.exact["ledger.total.sent_bytes"] == sent
    assert shown.exact["ledger.total.received_bytes"] == 2 * sent
    assert shown.exact["ledger.total.received_messages"] == 33
    assert shown.exact["ledger.row_bytes"] == 3 * sent / 341
    assert shown.exact["ledger.row_epoch_bytes"] == pytest.approx(3 * sent / 341 / 9)
    assert shown.exact["ledger.mean.train.waited_s"] == 1.2331
    assert shown.numbers["ledger.worst.train.waited_s"] == "41\u00a0ms"
    assert shown.exact["ledger.total.waited_s"] == pytest.approx(1.2742)


@pytest.mark.usefixtures("plain")
def test_the_first_sentence_tells_the_run(binary: Record, multiclass: Record, blank: Record) -> None:
    auc = binary["metrics"]["test"]["auc"]
    said = f"Three parties trained one model in 6.1\u00a0s: test AUC {auc:.3f} together, 0.871 alone."
    assert said in render_report(binary)
    assert "together, 0.333 by always naming the commonest class." in render_report(multiclass)
    assert "The parties trained one model in 0\u00a0s." in render_report(blank)


@pytest.mark.usefixtures("plain")
def test_a_run_that_did_not_finish_says_so_at_the_top(binary: Record) -> None:
    binary["status"] = "lost"
    shown = Reader(render_report(binary)).text
    assert "Three parties trained for 6.1\u00a0s, then the run ended as “lost”; test AUC" in shown
    assert "This run did not finish (status: lost)." in shown


@pytest.mark.usefixtures("plain")
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
    shown = Reader(render_report(regression))
    assert said in shown.text
    assert re.findall("better$|worse$|equal$", shown.text, re.MULTILINE)[:1] == [verdict]


@pytest.mark.usefixtures("plain")
def test_the_score_that_decides_comes_first(regression: Record) -> None:
    regression["score"] = "r2"
    hooks = [h for h in Reader(render_report(regression)).numbers if h.startswith("test.")]
    assert hooks == ["test.r2", "test.rmse", "test.mae"]


@pytest.mark.usefixtures("plain")
def test_a_score_nobody_knows_is_shown_without_a_verdict(blank: Record) -> None:
    blank["metrics"] = {"test": {"top_5": 0.75}}
    blank["alone"] = {"kind": "a coin", "test": {"top_5": 0.5}}
    blank["score"] = "top_5"
    shown = Reader(render_report(blank))
    assert shown.numbers["difference.top_5"] == "+0.250"
    assert "top 5 0.750 together, 0.500 by a coin" in shown.text
    assert not shown.all("svg")


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize("part", list(Record.__annotations__))
def test_a_page_is_made_whatever_is_missing(binary: Record, blank: Record, part: str) -> None:
    if part in blank and part != "task":
        binary[part] = blank[part]
    Reader(render_report(binary))


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_score_that_is_not_finite_is_a_dash(binary: Record, bad: float) -> None:
    binary["metrics"]["test"]["auc"] = bad
    binary["history"][3]["valid"]["auc"] = bad
    binary["history"][4]["loss"] = bad
    shown = Reader(render_report(binary))
    assert shown.numbers["test.auc"] == shown.numbers["difference.auc"] == "–"
    assert "What the partners add is not known" in shown.text


@pytest.mark.usefixtures("plain")
def test_without_validation_rows_only_the_training_loss_is_drawn(binary: Record) -> None:
    binary["rows"]["valid"] = 0
    binary["metrics"]["valid"] = {}
    binary["best_epoch"] = None
    for epoch in binary["history"]:
        epoch["valid"] = {}
    shown = Reader(render_report(binary))
    assert [svg["class"] for svg in shown.all("svg")] == [
        "plot comparison",
        "plot loss",
        "plot roc",
        "plot calibration",
    ]
    assert "were kept" not in shown.text


@pytest.mark.usefixtures("plain")
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
    shown = Reader(render_report(binary))
    assert said in shown.text
    assert [svg["class"] for svg in shown.all("svg")] == ["plot comparison", "plot loss", "plot score"]


@pytest.mark.usefixtures("plain")
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


@pytest.mark.usefixtures("plain")
def test_the_commonest_mistakes_are_listed(multiclass: Record) -> None:
    truth = np.array([0, 0, 0, 1, 2])
    multiclass["test"] = {"truth": truth, "output": np.eye(3)[[1, 1, 0, 1, 0]]}
    lines = Reader(render_report(multiclass)).text.split("\n")
    assert [line for line in lines if re.fullmatch("[a-z]+[0-9]{2}", line)] == [
        "setosaversicolor23",
        "virginicasetosa11",
    ]


@pytest.mark.usefixtures("plain")
def test_too_many_classes_are_listed_and_not_drawn(multiclass: Record) -> None:
    multiclass["classes"] = []
    multiclass["test"] = {"truth": np.arange(60), "output": np.eye(60)[(np.arange(60) + 1) % 60]}
    shown = Reader(render_report(multiclass))
    assert "60 classes are too many" in shown.text
    assert "plot confusion" not in [svg["class"] for svg in shown.all("svg")]
    assert "The commonest mistakes" in shown.text


@pytest.mark.usefixtures("plain")
def test_whoever_learns_is_listed_even_who_took_no_part(binary: Record) -> None:
    text = Reader(render_report(binary)).text
    assert "onlooker" in text
    assert "the size and time of every message" in text


def test_no_address_and_no_script_is_on_the_page(whole: str) -> None:
    shown = Reader(whole)
    assert "http:" not in whole
    assert "https:" not in whole
    assert not {"script", "iframe", "object", "img", "image", "a", "form"} & {
        tag for tag, _ in shown.elements
    }
    for _, attributes in shown.elements:
        assert not [name for name in attributes if name.startswith("on")]
        assert all((attributes.get(name) or "#").startswith(("#", "data:")) for name in ("href", "src"))
    assert "@import" not in whole
    policy = [m["content"] for m in shown.all("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'; img-src data:"]


def test_ids_are_unique_and_labels_point_at_them(whole: str) -> None:
    shown = Reader(whole)
    ids = [a["id"] for _, a in shown.elements if "id" in a]
    assert len(ids) == len(set(ids))
    assert {a["aria-labelledby"] for a in shown.all("section")} <= set(ids)


def test_the_page_can_be_read_aloud(whole: str) -> None:
    shown = Reader(whole)
    assert shown.all("html") == [{"lang": "en"}]
    assert len(shown.all("h1")) == 1
    assert all(head.get("scope") in {"col", "row", "rowgroup"} for head in shown.all("th"))
    assert len(shown.all("caption")) == len(shown.all("table"))
    drawings = [a for a in shown.all("div") if a.get("role") == "img"]
    assert len(drawings) == len(shown.all("svg"))
    assert all(len(a["aria-label"] or "") > 20 for a in drawings)


def test_the_same_record_gives_the_same_page(binary: Record, pages: dict[str, str]) -> None:
    assert render_report(binary) == pages["binary"]


@pytest.mark.usefixtures("plain")
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
    binary["history"], binary["metrics"], binary["test"] = (
        [],
        {},
        None,
    )  # the figures' names are tested beside the figures
    shown = Reader(render_report(binary))
    allowed = (
        "html head meta link title style body main header section div p h1 h2 span small b time dl dt dd data"
    )
    tables = "table caption thead tbody tfoot tr th td"
    assert {tag for tag, _ in shown.elements} <= set(allowed.split()) | set(tables.split())
    assert not [a for _, attributes in shown.elements for a in attributes if a.startswith("on")]


def test_a_hostile_class_name_stays_text_in_the_figure(multiclass: Record) -> None:
    multiclass["classes"] = ["<script>x</script>", "</svg><b>", "c"]
    source = render_report(multiclass)
    Reader(source)
    assert "<script" not in source
    assert "&lt;/svg&gt;&lt;b&gt;" in source


@pytest.mark.usefixtures("plain")
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
            {"test": {"truth": np.array([1, 2]), "output": np.zeros(2)}},
            "test.truth holds 2; number the 2 classes from 0",
        ),
        (
            {"task": "multiclass", "test": {"truth": np.array([-1.0, 0.0]), "output": np.zeros((2, 2))}},
            "test.truth holds -1; number the 2 classes from 0",
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
