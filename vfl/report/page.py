"""Sets the report of a run as one HTML page: no network, no script, no other file.

What comes from outside (names, sentences, classes) is escaped by jinja2; inside figures by matplotlib. A page
is made whatever is missing: no validation rows, one epoch, a class that never occurs; it then says what is
not there. Numbers carry a `data-metric` attribute (`test.auc`, `alone.auc`, `ledger.total.sent_bytes`) and
their exact value in a `<data value>`, so that a program reads the same page as a person.

n stands for rows, c for classes.
"""

from __future__ import annotations

import math
from importlib import resources
from typing import Any, Final, NamedTuple

import numpy as np
from jinja2 import Environment, StrictUndefined
from numpy.typing import NDArray

from vfl.errors import DataError
from vfl.report import words
from vfl.report.figures import (
    HALF_PX,
    MAX_CONFUSION_CLASSES,
    Band,
    Drawing,
    Pair,
    draw_calibration,
    draw_comparison,
    draw_confusion,
    draw_curves,
    draw_predictions,
    draw_roc,
)
from vfl.report.record import Record, Traffic
from vfl.report.terms import ALONE_WORDS, TASKS, metric_of

__all__ = ["Record", "render_report"]


class _Plate(NamedTuple):
    """A figure with its place on the page."""

    drawing: Drawing
    title: str
    caption: str


_COLUMNS: Final = ("sent_bytes", "received_bytes", "sent_messages", "received_messages")


def render_report(record: Record) -> str:
    """Returns the report of a run as one HTML document.

    Args:
        record: What the run left. `record["test"]["truth"]` has shape [n], and `["output"]` [n] or [n, c].

    Returns:
        The document; the same record gives the same text.

    Raises:
        DataError: For a task that is unknown, or test arrays whose shapes or values do not fit it.
    """
    if record["task"] not in TASKS:
        raise DataError(f"report: task {record['task']!r} is unknown; use one of {', '.join(TASKS)}")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(
        score=words.humane_score,
        signed=lambda value: words.humane_score(value, signed=True),
        bytes=words.humane_bytes,
        seconds=words.humane_seconds,
        moment=words.humane_time,
        counted=words.counted,
    )
    source = resources.files("vfl.report").joinpath("report.html.j2").read_text(encoding="utf-8")
    comparison = _comparison(record)
    return environment.from_string(source).render(
        record=record,
        task=TASKS[record["task"]],
        score_name=metric_of(record["score"]).label,
        row="rating" if record["task"] == "recommendation" else "row",
        summary=_summary(record),
        headline=comparison[0] if comparison and comparison[0]["difference"] is not None else None,
        alone_head=_alone_words(record)[0],
        gain=_gain(record),
        half_px=HALF_PX,
        comparison=comparison,
        comparison_plate=_comparison_plate(comparison),
        scores=_scores(record),
        curves=_curves(record),
        outcome=None if record["task"] == "recommendation" else _outcome(record),
        learned=_learned(record),
        ledger=_ledger(record),
        totals=_totals(record),
    )


def _capital(words: str) -> str:
    return words[:1].upper() + words[1:]


def _known(scores: dict[str, float], key: str) -> float | None:
    value = scores.get(key)
    return float(value) if value is not None and math.isfinite(value) else None


def _test_scores(record: Record) -> tuple[dict[str, float], dict[str, float]]:
    """Returns the test scores alone and together."""
    alone = record["alone"]["test"] if record["alone"] else {}
    return alone, record["metrics"].get("test", {})


def _alone_words(record: Record) -> tuple[str, str, str]:
    kind = record["alone"]["kind"] if record["alone"] else "own features"
    return ALONE_WORDS.get(kind, (kind, f"by {kind}", f"by {kind}"))


def _summary(record: Record) -> str:
    """Returns the run in one sentence."""
    who = words.counted(len(record["parties"]), "party", "parties") if record["parties"] else "the parties"
    took = words.humane_seconds(record["seconds"])
    if record["status"] == "finished":
        opening, colon = f"{_capital(who)} trained one model in {took}", ":"
    else:
        opening, colon = (
            f"{_capital(who)} trained for {took}, then the run ended as “{record['status']}”",
            ";",
        )
    alone, together = (_known(scores, record["score"]) for scores in _test_scores(record))
    if together is None:
        return f"{opening}."
    sentence = (
        f"{opening}{colon} test {metric_of(record['score']).label} {words.humane_score(together)} together"
    )
    if alone is not None:
        sentence += f", {words.humane_score(alone)} {_alone_words(record)[1]}"
    return f"{sentence}."


def _but_worse(record: Record, key: str) -> str:
    """Names the other scores by which together is worse than alone."""
    alone, together = _test_scores(record)
    pairs = {name: (_known(alone, name), _known(together, name)) for name in together if name != key}
    worse = [
        metric_of(name).label
        for name, (before, after) in pairs.items()
        if before is not None and after is not None and (metric_of(name).better or 0) * (after - before) < 0
    ]
    return f", and {words.listed(worse)} worse" if worse else ""


def _gain(record: Record) -> str:
    """Returns what joining added, in a sentence or two."""
    key = record["score"]
    alone, together = (_known(scores, key) for scores in _test_scores(record))
    label = next((p["name"] for p in record["parties"] if p["role"] == "label"), "the label party")
    partners = [p["name"] for p in record["parties"] if p["role"] != "label"]
    if alone is None or together is None:
        return "What the partners add is not known: one of the two scores is missing."
    better = (metric_of(key).better or 1) * (together - alone)
    size = words.humane_score(abs(better))
    change = f"makes it {'better' if better > 0 else 'worse'} by {size}" if better else "changes nothing"
    change += _but_worse(record, key) if better > 0 else ""
    if record["task"] == "recommendation":
        return (
            f"The test {metric_of(key).label} on all participants’ ratings is {words.humane_score(alone)} "
            f"{_alone_words(record)[2]}; together it is {words.humane_score(together)}. Joining {change}."
        )
    with_whom = f"with {words.listed(partners)}" if partners else "together"
    return (
        f"The label is held by {label}, which reaches a test {metric_of(key).label} of "
        f"{words.humane_score(alone)} {_alone_words(record)[2]}; {with_whom} it reaches "
        f"{words.humane_score(together)}. Joining {change}."
    )


def _keys(record: Record, *scores: dict[str, float]) -> list[str]:
    """Returns the metrics of `scores`, each once, the one that decided when to stop first."""
    keys = dict.fromkeys(key for some in scores for key in some)
    return sorted(keys, key=lambda key: key != record["score"])


def _comparison(record: Record) -> list[dict[str, Any]]:
    alone, together = _test_scores(record)
    rows = []
    for key in _keys(record, together, alone) if alone else []:
        a, t = _known(alone, key), _known(together, key)
        difference = None if a is None or t is None else t - a
        sign = (difference or 0) * metric_of(key).better
        verdict = "better" if sign > 0 else "worse" if sign < 0 else "equal" if difference == 0 else ""
        rows.append(
            {"key": key, "label": metric_of(key).label, "alone": a, "together": t, "difference": difference}
            | {"verdict": verdict}
        )
    return rows


def _comparison_plate(comparison: list[dict[str, Any]]) -> _Plate | None:
    hints = {1: "further right is better", -1: "further left is better"}
    bands: dict[str, list[Pair]] = {}
    for row in comparison:
        hint = hints.get(metric_of(row["key"]).better)
        if hint and (row["alone"], row["together"]) != (None, None):
            bands.setdefault(hint, []).append(Pair(row["label"], row["alone"], row["together"]))
    drawing = draw_comparison([Band(*band) for band in bands.items()]) if bands else None
    return _Plate(drawing, "Test scores", "") if drawing else None


def _scores(record: Record) -> list[dict[str, Any]]:
    parts = {part: record["metrics"].get(part, {}) for part in ("valid", "test")}
    hints = {1: "higher is better", -1: "lower is better", 0: ""}
    return [
        {"key": key, "label": metric_of(key).label, "hint": hints[metric_of(key).better]}
        | {part: _known(scores, key) for part, scores in parts.items()}
        for key in _keys(record, parts["test"], parts["valid"])
    ]


def _curves(record: Record) -> list[_Plate]:
    history = record["history"]
    if not history:
        return []
    epochs = [epoch["epoch"] for epoch in history]

    def valid(key: str) -> list[float] | None:
        return (
            [e["valid"].get(key, math.nan) for e in history]
            if any(key in e["valid"] for e in history)
            else None
        )

    best, key = record["best_epoch"], record["score"]
    losses = [epoch["loss"] for epoch in history if "loss" in epoch]  # a sum over ratings tells of none
    plates = []
    if losses:
        drawing = draw_curves("loss", "loss", epochs, valid("log_loss"), losses, best)
        both = "On the training rows (dashed), and log loss on the validation rows (solid)."
        caption = both if valid("log_loss") else "On the training rows."
        plates.append(_Plate(drawing, "Loss", caption))
    rows = "ratings" if record["task"] == "recommendation" else "rows"
    for place, name in enumerate([key] if losses else _keys(record, history[-1]["valid"])):
        curve = valid(name)
        if curve and name != "log_loss":
            drawing = draw_curves(
                "score" if not place else f"score{place}", metric_of(name).label, epochs, curve, None, best
            )
            decides = "; it decides which weights are kept" if name == key else ""
            caption = f"On the validation {rows}{decides}."
            plates.append(_Plate(drawing, _capital(metric_of(name).label), caption))
    return plates


def _outcome(record: Record) -> dict[str, Any]:
    """Returns what the test rows show: figures, the commonest mistakes, or a note on why there are none."""
    test = record["test"]
    if test is None or not len(test["truth"]):
        return {"plates": [], "mistakes": [], "note": "There are no test rows to draw."}
    truth, output = np.asarray(test["truth"]), np.asarray(test["output"], dtype=np.float64)
    dims = 2 if record["task"] == "multiclass" else 1
    if truth.ndim != 1 or output.ndim != dims or len(truth) != len(output):
        raise DataError(
            f"report: test.truth has shape {list(truth.shape)} and test.output {list(output.shape)}; "
            f"a {record['task']} run needs [n] and {'[n, c]' if dims == 2 else '[n]'}"
        )
    if not (np.isfinite(output).all() and np.isfinite(truth.astype(np.float64)).all()):
        note = "Nothing can be drawn of the test rows: some outputs are not finite, so training ran away."
        return {"plates": [], "mistakes": [], "note": note}
    classes = {"binary": 2, "multiclass": output.shape[-1], "regression": 0}[record["task"]]
    stray = truth[~np.isin(truth, np.arange(classes))] if classes else truth[:0]
    if len(stray):
        raise DataError(f"report: test.truth holds {stray[0]:g}; number the {classes} classes from 0")
    draw = {"binary": _binary, "multiclass": _multiclass, "regression": _regression}[record["task"]]
    return {"mistakes": [], "note": "", **draw(record, truth, output)}


def _binary(record: Record, truth: NDArray[Any], output: NDArray[Any]) -> dict[str, Any]:
    if output.min() < -1e-6 or output.max() > 1 + 1e-6:
        worst = output.min() if output.min() < 0 else output.max()
        raise DataError(f"report: test.output holds {worst:g}; a binary run needs probabilities in 0 to 1")
    output = output.clip(0, 1)
    positive = record["positive"] or "positive"
    truth = truth.astype(np.int64)
    if len(np.unique(truth)) < 2:
        return {
            "plates": [],
            "note": "All test rows are of one class, which leaves ROC and calibration undefined.",
        }
    roc = (
        f"How much of {positive} is found, against how much else is taken for it. The dot is threshold 0.5, "
        "the dashed line chance."
    )
    calibration = (
        f"How often a row is {positive}, by the probability it was given. A dot’s area follows its rows, the "
        "whisker is a 95\N{NO-BREAK SPACE}% interval; on the dashed line the two are equal."
    )
    return {
        "plates": [
            _Plate(draw_roc(truth, output), "ROC", roc),
            _Plate(draw_calibration(truth, output), "Calibration", calibration),
        ]
    }


def _multiclass(record: Record, truth: NDArray[Any], output: NDArray[Any]) -> dict[str, Any]:
    from sklearn.metrics import confusion_matrix

    c = output.shape[1]
    names = record["classes"] or [str(k) for k in range(c)]
    if len(names) != c:
        raise DataError(
            f"report: classes names {len(names)}, but test.output has {c} columns; name each column"
        )
    counts = confusion_matrix(truth, output.argmax(axis=1), labels=range(c))  # [c, c]
    wrong = np.where(np.eye(c, dtype=bool), 0, counts)
    order = [divmod(int(flat), c) for flat in np.argsort(-wrong, axis=None, kind="stable")[:8]]
    mistakes = [
        {"true": names[i], "predicted": names[j], "rows": int(wrong[i, j]), "of": int(counts[i].sum())}
        for i, j in order
        if wrong[i, j]
    ]
    if c > MAX_CONFUSION_CLASSES:
        return {
            "plates": [],
            "mistakes": mistakes,
            "note": f"{c} classes are too many for a readable matrix.",
        }
    caption = "Test rows by class. Shade grows with the share of the true class; an empty square is zero."
    return {
        "plates": [_Plate(draw_confusion(counts, names), "Confusion matrix", caption)],
        "mistakes": mistakes,
    }


def _regression(record: Record, truth: NDArray[Any], output: NDArray[Any]) -> dict[str, Any]:
    caption = "One dot a test row. On the dashed line the two are equal."
    return {"plates": [_Plate(draw_predictions(truth, output), "Predicted against true", caption)]}


def _learned(record: Record) -> list[dict[str, Any]]:
    """Returns a row a party, or for all that learn the same, then a row for whoever else learns something."""
    said = {entry["party"]: entry["learns"] for entry in record["learned"]}
    rows: dict[tuple[object, ...], list[str]] = {}
    for party in record["parties"]:
        name, width = party["name"], party["width"]
        alike = name if width is not None else ""  # parties with a cut width are told apart by it
        rows.setdefault((alike, party["role"], width, said.pop(name, "")), []).append(name)
    others = [{"name": name, "role": "", "width": None, "learns": text} for name, text in said.items()]
    return [
        {"name": words.named(names), "role": role, "width": width, "learns": text}
        for (_, role, width, text), names in rows.items()
    ] + others


def _ledger(record: Record) -> list[dict[str, Any]]:
    """Returns a group a peer, each with its phases."""
    peers: dict[str, list[Traffic]] = {}
    for entry in record["ledger"]:
        peers.setdefault(entry["peer"], []).append(entry)
    return [{"peer": peer, "phases": phases} for peer, phases in peers.items()]


def _totals(record: Record) -> dict[str, float | None]:
    totals: dict[str, float | None] = {c: sum(int(e[c]) for e in record["ledger"]) for c in _COLUMNS}
    moved, rows = (
        (totals["sent_bytes"] or 0) + (totals["received_bytes"] or 0),
        record["rows"].get("train", 0),
    )
    epochs = len(record["history"])
    totals["moved_bytes"] = moved
    totals["row_bytes"] = moved / rows if rows else None
    totals["row_epoch_bytes"] = moved / rows / epochs if rows and epochs else None
    totals["waited_s"] = sum(entry["waited_s"] for entry in record["ledger"])
    return totals
