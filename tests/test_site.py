"""The site builds without a warning, its links lead somewhere, and the reference has every public name and every flag."""

import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site without what notebooks print, as `CONTRIBUTING.md` says it is built. A page that no menu lists is an error."""
    for needed in ("furo", "jupytext", "myst_nb", "sphinx_copybutton"):
        pytest.importorskip(needed)
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "-n", "-D", "nb_execution_mode=off", "-d", folder / "trees"]
    done = subprocess.run([*command, ROOT / "docs", folder / "html"], capture_output=True, text=True, check=False)
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
