from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Route, sync_playwright

from vfl.report.page import Record

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")

READ_NUMBERS = """() => Object.fromEntries([...document.querySelectorAll('[data-metric]')].map(
    cell => [cell.dataset.metric, [cell.innerText.trim(), cell.querySelector('data')?.value ?? null]]))"""

# What sticks out of its figure, by more than the pixel that rounding may cost.
READ_CLIPPED = """() => [...document.querySelectorAll('svg.plot')].flatMap(svg => {
    const frame = svg.getBoundingClientRect();
    return [...svg.querySelectorAll('text')].filter(text => {
        const box = text.getBoundingClientRect();
        return box.left < frame.left - 1 || box.right > frame.right + 1
            || box.top < frame.top - 1 || box.bottom > frame.bottom + 1;
    }).map(text => svg.getAttribute('class') + ': ' + text.textContent);
})"""

READ_CONTRAST = """() => {
    const shine = colour => {
        const [r, g, b] = colour.match(/[\\d.]+/g).map(Number)
            .map(v => v / 255).map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const paper = shine(getComputedStyle(document.body).backgroundColor);
    const words = 'p, h1, h2, th, td, dt, dd, figcaption, small, .plot text';
    return [...document.querySelectorAll(words)].map(e => {
        const ink = shine(getComputedStyle(e).color);
        return (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
    }).reduce((a, b) => Math.min(a, b));
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield running
        running.close()


def opened(browser: Browser, file: Path) -> tuple[Page, list[str]]:
    """Opens a file with every other address cut off; returns the page and its complaints and requests."""
    page = browser.new_page()
    trouble: list[str] = []

    def only_the_file(route: Route) -> None:
        if route.request.url == file.as_uri():
            route.continue_()
        else:
            route.abort()

    page.route("**/*", only_the_file)
    page.on("request", lambda r: trouble.append(f"asked for {r.url}") if r.url != file.as_uri() else None)
    page.on("console", lambda message: trouble.append(message.text))
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.goto(file.as_uri())
    return page, trouble


def looks(page: Page) -> Iterator[tuple[int, str]]:
    """Turns a page wide and narrow, light and dark."""
    for width in (1280, 390):
        for scheme in ("light", "dark"):
            page.set_viewport_size({"width": width, "height": 900})
            page.emulate_media(color_scheme=scheme)
            yield width, scheme


def test_the_figures_read_off_the_page_are_the_records(
    browser: Browser, binary: Record, pages: dict[str, str], tmp_path: Path
) -> None:
    file = tmp_path / "report.html"
    file.write_text(pages["binary"], encoding="utf-8")
    page, trouble = opened(browser, file)
    alone = binary["alone"]
    assert alone is not None
    for _ in looks(page):
        shown = page.evaluate(READ_NUMBERS)
        for key, value in binary["metrics"]["test"].items():
            assert shown[f"test.{key}"] == [f"{value:.3f}", str(value)]
            assert shown[f"together.{key}"] == [f"{value:.3f}", str(value)]
            assert shown[f"alone.{key}"] == [f"{alone['test'][key]:.3f}", str(alone["test"][key])]
        assert float(shown["ledger.total.sent_bytes"][1]) == sum(e["sent_bytes"] for e in binary["ledger"])
        assert shown["seconds"] == ["6.1\u00a0s", "6.1034"]
        drawn = [svg.bounding_box() for svg in page.locator("svg.plot").all()]
        assert [box is not None and box["width"] > 300 for box in drawn] == [True] * 5
    assert f"AUC {binary['metrics']['test']['auc']:.3f}" in (page.locator("svg.roc").text_content() or "")
    assert trouble == []
    page.close()


@pytest.mark.parametrize("kind", ["binary", "multiclass", "regression", "blank"])
def test_nothing_overflows_is_clipped_or_fades(
    browser: Browser, pages: dict[str, str], tmp_path: Path, kind: str
) -> None:
    file = tmp_path / "report.html"
    file.write_text(pages[kind], encoding="utf-8")
    page, trouble = opened(browser, file)
    for width, scheme in looks(page):
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(READ_CLIPPED) == []
        assert page.evaluate(READ_CONTRAST) > 4.5
        dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(21, 22, 24)"
        assert dark == (scheme == "dark")
    assert trouble == []
    page.close()


def test_a_dark_screen_still_prints_on_white(browser: Browser, pages: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    file.write_text(pages["blank"], encoding="utf-8")
    page, _ = opened(browser, file)
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(28, 27, 25)"
    page.close()
