"""The report in a real browser: silent, alone, readable on a phone and in the dark, printable, and copied as text."""

import re
import shutil
from dataclasses import replace

import pytest

from sound_qkeras.network.labels import Labels
from sound_qkeras.report.accuracy import MOST_OUTPUTS
from sound_qkeras.report.coverage import MOST_ROWS
from sound_qkeras.report.page import page
from tests.report.results import TIERS, result_of
from tests.results import random_result

pytestmark = pytest.mark.slow
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
WIDTHS = (320, 390, 768, 1000, 1280)

# Contrast of text with what is behind it, after WCAG 2.2: relative luminances of sRGB colours.
CONTRAST = """() => {
  const parts = color => color.match(/[\\d.]+/g).map(Number)
  const light = color => {
    const [r, g, b] = parts(color).slice(0, 3).map(v => v / 255).map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    return .2126 * r + .7152 * g + .0722 * b
  }
  const behind = element => {
    const color = getComputedStyle(element).backgroundColor
    return parts(color)[3] === 0 ? behind(element.parentElement) : color
  }
  const texts = [...document.querySelectorAll('h1, h2, p, li, dt, dd, a, th, td, caption, code, .tier')]
  return Math.min(...texts.map(element => {
    const pair = [light(getComputedStyle(element).color), light(behind(element))]
    return (Math.max(...pair) + .05) / (Math.min(...pair) + .05)
  }))
}"""
COPIED = """() => {
  const table = [...document.querySelectorAll('table')].find(one => one.caption.textContent === 'Stored bits')
  getSelection().selectAllChildren(table)
  return getSelection().toString()
}"""


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")
    executable = next(filter(None, map(shutil.which, NAMES)), None)
    if executable is None:
        pytest.skip(f"needs a browser; none of {', '.join(NAMES)} was found")
    with playwright.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield found
        found.close()


def results():
    """Every tier, a long network, and a sweep."""
    yield from ((tier, result_of(tier, saturate=True), ()) for tier in TIERS)
    yield "long", random_result(1, (3, *(3,) * 30, 2)), ()
    result = random_result()
    yield "sweep", result, (result,)
    yield "wide", wide(), ()


def wide():
    """As much as there may be before the appendix: many inputs and outputs, each with a name of its own."""
    found = random_result(2, (MOST_ROWS, 4, MOST_OUTPUTS))
    names = [f"the input number {k}" for k in range(MOST_ROWS)], [f"output number {k}" for k in range(MOST_OUTPUTS)]
    labels = Labels(*map(tuple, names), dict.fromkeys((*names[0], *names[1]), "m/s"))
    return replace(found, certificate=replace(found.certificate, labels=labels))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    for name, result, sweep in results():
        (folder / f"{name}.html").write_text(page(result, sweep), encoding="utf-8")
    return sorted(folder.iterdir())


class Visit:
    """A page that is open, with what the browser said and asked for."""

    def __init__(self, context, file):
        self.said, self.asked = [], []
        self.page = context.new_page()
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(file.as_uri())


@pytest.fixture(params=["light", "dark"])
def visits(request, browser, files):
    context = browser.new_context(color_scheme=request.param)
    yield [Visit(context, file) for file in files]
    context.close()


def test_it_is_silent_and_asks_for_nothing(visits, files):
    for visit, file in zip(visits, files, strict=True):
        assert visit.said == []
        assert [url for url in visit.asked if not url.startswith("data:")] == [file.as_uri()]


def test_the_browser_would_have_noticed(browser, files, tmp_path):
    bad = tmp_path / "bad.html"
    text = files[0].read_text(encoding="utf-8")
    bad.write_text(text.replace("</main>", "<img src='https://example.invalid/x.png'></main>"), encoding="utf-8")
    assert Visit(browser.new_context(), bad).said != []


def test_nothing_is_wider_than_the_screen(visits):
    for visit in visits:
        for width in WIDTHS:
            visit.page.set_viewport_size({"width": width, "height": 800})
            assert visit.page.evaluate("document.documentElement.scrollWidth") <= width


def test_text_stands_out_in_light_and_dark(visits):
    for visit in visits:
        assert visit.page.evaluate(CONTRAST) >= 4.5


def test_light_and_dark_differ(browser, files):
    pages = [Visit(browser.new_context(color_scheme=scheme), files[0]).page for scheme in ("light", "dark")]
    assert len({one.evaluate("getComputedStyle(document.body).backgroundColor") for one in pages}) == 2


def test_tables_are_copied_as_text(browser, files):
    visit = Visit(
        browser.new_context(viewport={"width": 1280, "height": 800}), next(f for f in files if f.stem == "sound")
    )
    lines = visit.page.evaluate(COPIED).strip().splitlines()
    rows = [line.split("\t") for line in lines if "\t" in line]
    assert rows[0][:6] == ["Choice", "Weight bits", "Bias bits", "Value bits", "Table bits", "Total"]
    assert [row[0].split(":")[0] for row in rows[1:]] == ["chosen", "uniform", "32 bits"]
    assert all(len(row) >= 6 for row in rows)


def test_it_prints_all_rows(browser, files):
    visit = Visit(browser.new_context(), next(file for file in files if file.stem == "long"))
    height = "Math.max(...[...document.querySelectorAll('.long')].map(one => one.scrollHeight - one.clientHeight))"
    assert visit.page.evaluate(height) > 0
    visit.page.emulate_media(media="print")
    assert visit.page.evaluate(height) <= 0
    assert visit.page.pdf(format="A4").startswith(b"%PDF")


def test_three_pages_of_paper_are_enough_without_the_appendix(browser, files):
    for file in files:
        visit = Visit(browser.new_context(), file)
        whole = pages(visit.page.pdf(format="A4"))
        visit.page.add_style_tag(content=".appendix { display: none }")
        assert 1 <= pages(visit.page.pdf(format="A4")) <= 3, file.stem
        assert whole > pages(visit.page.pdf(format="A4"))


def pages(pdf):
    return len(re.findall(rb"/Type\s*/Page\b", pdf))


def test_long_tables_are_folded_on_a_phone_alone(browser, files):
    file = next(file for file in files if file.stem == "long")
    for width, folded in ((390, True), (1280, False)):
        visit = Visit(browser.new_context(viewport={"width": width, "height": 800}), file)
        rows = visit.page.locator("table", has=visit.page.get_by_text("Formats, one per tensor", exact=True))
        assert rows.is_visible() is not folded
        if folded:
            visit.page.get_by_text("Formats, one per tensor: ").click()
            assert rows.is_visible()
            visit.page.emulate_media(media="print")
    assert rows.is_visible()
