"""The site builds without a warning, its links lead somewhere, and the reference has every public name and every flag."""

import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.slow
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site without what notebooks print, as `CONTRIBUTING.md` says it is built. A page that no menu lists is an error."""
    for needed in ("furo", "jupytext", "myst_nb", "sphinx_copybutton"):
        pytest.importorskip(needed)
    folder = tmp_path_factory.mktemp("site")
    options = ["-q", "-W", "-n", "-D", "nb_execution_mode=off", "-d", folder / "trees"]
    command = [sys.executable, "-P", "-m", "sphinx", *options, ROOT / "docs", folder / "html"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "html"


class Page(HTMLParser):
    """What a page links to, and where it can be linked to."""

    def __init__(self, file):
        super().__init__()
        self.targets, self.places = [], {""}
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.targets += [given[name] for name in ("href", "src") if given.get(name)]
        self.places.add(given.get("id"))


def test_links_and_their_anchors_exist(site):
    pages = {file: Page(file) for file in site.rglob("*.html")}
    broken, internal = [], 0
    for file, page in pages.items():
        for target in page.targets:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            internal += 1
            there = (file.parent / unquote(parts.path)).resolve() if parts.path else file
            if not there.exists() or (there in pages and unquote(parts.fragment) not in pages[there].places):
                broken.append(f"{file.relative_to(site)}: {target}")
    assert broken == []
    assert internal > 1000


def test_it_needs_nothing_from_elsewhere(site):
    pages = [Page(file) for file in site.rglob("*.html")]
    assert [target for page in pages for target in page.targets if target.startswith(("http:", "//"))] == []
    text = "".join(file.read_text(encoding="utf-8") for file in site.rglob("*.html"))
    assert 'src="https:' not in text


def test_reference_has_every_public_name(site):
    import sound_qkeras
    from sound_qkeras import backends

    text = "".join(file.read_text(encoding="utf-8") for file in (site / "reference").iterdir())
    names = {*sound_qkeras.__all__, *backends.__all__, "SoundQuant"} - {"__version__"}
    assert [name for name in names if f'.{name}"' not in text] == []


def test_reference_has_every_command_and_flag(site):
    from typer.main import get_command

    from sound_qkeras.cli.commands import app

    text = (site / "reference" / "commands.html").read_text(encoding="utf-8")
    flags = {flag for command in get_command(app).commands.values() for one in command.params for flag in one.opts}
    assert [flag for flag in flags if flag.startswith("-") and f">{flag}<" not in text] == []


def test_names_in_guides_lead_to_the_reference(site):
    assert Page(site / "limits.html").targets.count("reference/functions.html#sound_qkeras.certify") >= 1


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    executable = next(filter(None, map(shutil.which, BROWSERS)), None)
    if executable is None:
        pytest.skip(f"needs a browser; none of {', '.join(BROWSERS)} was found")
    with playwright.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield found
        found.close()


def test_search_works_from_files_and_finds_a_flag_and_a_name(site, browser):
    page = browser.new_page()
    for words, expected in {"saturate": "Limits", "to_hls4ml": "to_hls4ml", "radius": "radius"}.items():
        page.goto(f"{(site / 'search.html').as_uri()}?q={words}")
        page.wait_for_selector("text=Search finished")
        assert expected in page.inner_text("#search-results")


def test_pages_fit_phones_and_ask_for_nothing(site, browser):
    page = browser.new_page(viewport={"width": 390, "height": 844})
    asked, said = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    for file in sorted(site.rglob("*.html")):
        page.goto(file.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, file.name
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert said == []
