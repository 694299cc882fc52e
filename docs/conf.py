"""How the site is made from these pages: `sphinx-build -W -n docs out/site`.

With `-D nb_execution_mode=off` the notebooks are shown without what they print, and the build takes seconds.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import jupytext
from sphinx.application import Sphinx

import sound_qkeras

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(HERE))

project = "sound_qkeras"
version = release = sound_qkeras.__version__
extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "myst_nb",
    "commands",
    "linking",
]
exclude_patterns = ["_*"]
nitpicky = True
# Types in signatures that have no page here: those of other packages, and of what a caller passes on without looking inside.
nitpick_ignore_regex = [
    (
        "py:class",
        r"(collections|contextlib|np|npt|numpy|os|pathlib|sound_qkeras)\..*|Path|ArrayLike|Reals|Progress|GroupCost",
    ),
]

myst_heading_anchors = 4
myst_enable_extensions = ["html_image"]
copybutton_exclude = ".linenos, .gp, .go"
default_role = "code"  # docstrings are Markdown

autodoc_type_aliases = {name: name.removeprefix("npt.") for name in ("npt.ArrayLike", "Reals", "Progress", "GroupCost")}
autoclass_content = "both"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
napoleon_use_ivar = True
add_module_names = False
python_maximum_signature_line_length = 88

nb_execution_mode = "cache"
nb_execution_in_temp = True  # they write files
nb_execution_timeout = 600
nb_execution_raise_on_error = True
nb_output_stderr = "remove"  # TensorFlow talks about the machine

pygments_dark_style = "github-dark"
html_theme = "furo"
html_title = "sound_qkeras"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = html_show_sourcelink = html_show_copyright = False
templates_path: list[str] = []

# Notebooks are kept as programs; what Sphinx and those who download them get is made here.
for program in sorted((ROOT / "examples" / "notebooks").glob("*.py")):
    notebook = HERE / "notebooks" / f"{program.stem}.ipynb"
    text = jupytext.writes(jupytext.read(program), fmt="ipynb")
    if not notebook.exists() or notebook.read_text(encoding="utf-8") != text:
        notebook.parent.mkdir(exist_ok=True)
        notebook.write_text(text, encoding="utf-8")


# Pages whose text is that of a file in the folder above.
FROM_ABOVE = {"index": "README.md", "changelog": "CHANGELOG.md", "contributing": "CONTRIBUTING.md"}


def place_files(app: Sphinx, page: str, source: list[str]) -> None:
    """Put the README and its like on their pages, and make links to them, and to notebooks, lead there."""
    if page in FROM_ABOVE:
        file = ROOT / FROM_ABOVE[page]
        app.env.note_dependency(file)
        text = re.sub(r'(\]\(|src=")(?!#|[a-z]+:)', r"\1../", file.read_text(encoding="utf-8"))
        source[0] = text.replace("../docs/", "") + source[0]
    for name, file_name in FROM_ABOVE.items():
        source[0] = source[0].replace(f"](../{file_name}", f"]({name}.md")
    source[0] = re.sub(r"\]\(\.\./examples/(notebooks/\w+)\.py\)", r"](\1.ipynb)", source[0])


def read_fences(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Fenced code in docstrings, as Sphinx writes it."""
    indent = ""
    for at, line in enumerate(lines):
        if line.startswith("```"):
            indent = "" if indent else "    "
            lines[at] = f".. code-block:: {line[3:]}" if indent else ""
            if indent:
                lines.insert(at + 1, "")
        else:
            lines[at] = indent + line


def shorten(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """Names of types inside of others, and defaults that a dataclass makes anew each time, which have no text of their own."""
    text = re.sub(r"[\w.~]*TypeAliasForwardRef\('(\w+)'\)", r"\1", signature or "").replace("<factory>", "...")
    return text or None, returns


def setup(app: Sphinx) -> None:
    """Connect the above."""
    app.connect("source-read", place_files)
    app.connect("autodoc-process-docstring", read_fences, priority=400)  # before napoleon
    app.connect("autodoc-process-signature", shorten)
