"""The directive `commands`: every command with its flags, from the program itself."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from typer.main import get_command

from sound_qkeras.cli.commands import app as program


class Commands(SphinxDirective):
    """A section for each command."""

    def run(self) -> list[nodes.Node]:
        """Sections with usage, help, and a list of arguments and flags."""
        group: Any = get_command(program)
        sections: list[nodes.Node] = []
        for name, command in sorted(group.commands.items()):
            lines = described(f"sound-qkeras {name}", command)
            sections += self.parse_text_to_nodes("\n".join(lines), allow_section_headings=True)
        return sections


def described(name: str, command: Any) -> list[str]:
    """The command in reStructuredText."""
    places = [one.metavar for one in command.params if one.param_type_name == "argument"]
    lines = [name, "-" * len(name), "", f".. program:: {name}", "", command.help or "", ""]
    lines += [".. code-block:: text", "", "   " + " ".join([name, *places, "[OPTIONS]"]), ""]
    for one in command.params:
        flags = ", ".join([*one.opts, *one.secondary_opts]) if hasattr(one, "is_flag") else ""
        value = "" if flags and one.is_flag else one.metavar or one.name.upper()
        lines += [f".. option:: {flags} {value}".rstrip(), "", f"   {one.help}{default_of(one)}", ""]
    return lines


def default_of(parameter: Any) -> str:
    """What holds where the flag is not given."""
    value = parameter.default
    if parameter.required or callable(value) or value is None or value is False or value == ():
        return ""
    return f" Default: ``{' '.join(map(str, value)) if isinstance(value, tuple) else value}``."


def setup(app: Sphinx) -> dict[str, bool]:
    """Name the directive."""
    app.add_directive("commands", Commands)
    return {"parallel_read_safe": True}
