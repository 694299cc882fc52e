"""Write docs/reference.md from docstrings and signatures: `python docs/make_reference.py`. A test compares the two.

The code is read, not run: griffe parses it, so this needs no TensorFlow.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, get_origin, get_type_hints

import griffe
from typer.models import ArgumentInfo, OptionInfo

from sound_qkeras.cli.commands import app

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "docs" / "reference.md"

# What the reference is about: heading, how names are imported, and module -> names in the order of the page.
PARTS = (
    (
        "Functions",
        "from sound_qkeras import ...",
        {
            "jobs.quantize": ("quantize",),
            "jobs.sweep": ("sweep",),
            "jobs.certify": ("certify",),
            "study.compare": ("compare",),
            "jobs.finetune": ("finetune",),
            "jobs.check": ("check",),
            "results.archive": ("load",),
            "verify.softmax": ("softmax_bound",),
            "keras_io.session.environment": ("float64",),
        },
    ),
    (
        "What they return",
        "from sound_qkeras import Result, Certificate, Study",
        {
            "results.result": ("Result", "FormatRow"),
            "results.finetuned": ("Finetuning",),
            "verify.certificate": ("Certificate",),
            "verify.evidence": ("Local", "Statistical"),
            "results.classification": ("Classification",),
            "tuning.costs": ("Cost",),
            "tuning.optimality": ("Optimality",),
            "floating.fixed": ("FloatReport", "FloatLayer"),
            "results.model": ("GivenModel", "QuantizerRow", "SumRow"),
            "study.compare": ("Study",),
        },
    ),
    ("Callback", "from sound_qkeras.callbacks import SoundQuant", {"callbacks.sound_quant": ("SoundQuant",)}),
    (
        "Hardware",
        "from sound_qkeras.backends import ...",
        {
            "backends.export": ("export_hls",),
            "backends.toolchain": ("compile_and_run",),
            "backends.cost": ("estimate",),
            "backends.hardware": ("measure",),
            "backends.hls4ml_project": ("to_hls4ml", "Hls4mlProject"),
        },
    ),
    (
        "Keras",
        "from sound_qkeras.keras_io import ...",
        {
            "keras_io.write.quantizers": ("quantizer_config", "model_quantize"),
            "keras_io.session.storage": ("load_model", "save_model", "register"),
        },
    ),
    (
        "Errors",
        "from sound_qkeras.errors import ...",
        {
            "errors": (
                "SoundQKerasError",
                "InputError",
                "ModelError",
                "UnsupportedLayerError",
                "FileFormatError",
                "DependencyError",
                "InfeasibleError",
                "SolverError",
                "VerificationError",
            )
        },
    ),
)
GOOGLE = {"returns_named_value": False, "returns_multiple_items": False, "warnings": False}


def render() -> str:
    """The whole page."""
    head = (
        "# Reference\n\nGenerated from the docstrings by `python docs/make_reference.py`; do not edit. "
        "The [guides](README.md) say which of these to use when."
    )
    blocks = [head]
    for heading, importing, modules in PARTS:
        blocks += [f"## {heading}", f"`{importing}`"]
        for module, names in modules.items():
            found = load(module)
            for name in names:
                blocks += documented(found[name], name)
    return "\n\n".join([*blocks, *commands()]) + "\n"


def load(module: str) -> griffe.Module:
    """One module of the package, without what it imports."""
    folder, _, rest = module.partition(".")
    base = ROOT / "callbacks" if folder == "callbacks" else ROOT / "sound_qkeras"
    path = base / (rest if folder == "callbacks" else module).replace(".", "/")
    path = path.with_suffix(".py")
    return griffe.visit(module, filepath=path, code=path.read_text(encoding="utf-8"))


def documented(item: griffe.Object, title: str) -> list[str]:
    """Heading, signature and docstring of a function or class, and of its public members with a docstring."""
    blocks = [f"### `{title}`", *signature_of(item, title), *docstring_of(item)]
    if isinstance(item, griffe.Class):
        for name, member in item.members.items():
            if not name.startswith("_") and isinstance(member, griffe.Function | griffe.Attribute) and member.docstring:
                blocks.append(f"#### `{title}.{name}`")
                blocks += [*signature_of(member, name), *docstring_of(member)]
    return blocks


def signature_of(item: griffe.Object, title: str) -> list[str]:
    """The signature as a block of text; nothing for attributes and plain classes."""
    if isinstance(item, griffe.Class):
        maker = item.members.get("__init__")
        return signature_of(maker, title) if isinstance(maker, griffe.Function) else []
    if not isinstance(item, griffe.Function):
        return []
    parts: list[str] = []
    for parameter in item.parameters:
        if parameter.name in {"self", "cls"}:
            continue
        if parameter.kind is griffe.ParameterKind.keyword_only and not any(part.startswith("*") for part in parts):
            parts.append("*")
        parts.append(shown(parameter))
    result = f" -> {item.returns}" if item.returns is not None and item.name != "__init__" else ""
    line = f"{title}({', '.join(parts)}){result}"
    if len(line) > 100:
        line = f"{title}(\n" + "".join(f"    {part},\n" for part in parts) + f"){result}"
    return [f"```text\n{line}\n```"]


def shown(parameter: griffe.Parameter) -> str:
    """A parameter with its type and default."""
    stars = {griffe.ParameterKind.var_positional: "*", griffe.ParameterKind.var_keyword: "**"}
    text = stars.get(parameter.kind, "") + parameter.name
    if parameter.annotation is not None:
        text += f": {parameter.annotation}"
    variadic = parameter.kind in stars
    return text if parameter.default is None or variadic else f"{text} = {parameter.default}"


def docstring_of(item: griffe.Object) -> list[str]:
    """The docstring's parts; of a class also those of `__init__`."""
    blocks: list[str] = []
    if item.docstring is not None:
        blocks += [part_of(section) for section in item.docstring.parse("google", **GOOGLE)]
    maker = item.members.get("__init__") if isinstance(item, griffe.Class) else None
    if isinstance(maker, griffe.Function) and maker.docstring is not None:
        kept = (griffe.DocstringSectionParameters, griffe.DocstringSectionRaises)
        blocks += [part_of(s) for s in maker.docstring.parse("google", **GOOGLE) if isinstance(s, kept)]
    return [block for block in blocks if block]


def part_of(section: griffe.DocstringSection) -> str:
    """One part of a docstring in Markdown."""
    value = section.value
    if isinstance(section, griffe.DocstringSectionText):
        return value.strip()
    if isinstance(section, griffe.DocstringSectionExamples):
        return "```pycon\n" + "\n".join(text for _, text in value) + "\n```"
    if isinstance(section, griffe.DocstringSectionAdmonition):
        return f"{value.kind.capitalize()}: {value.contents}"
    if isinstance(section, griffe.DocstringSectionReturns):
        return "Returns: " + flat(value[0].description)
    if isinstance(section, griffe.DocstringSectionRaises):
        return "Raises:\n\n" + "\n".join(f"- `{entry.annotation}`: {flat(entry.description)}" for entry in value)
    return "\n".join(f"- `{entry.name}`: {flat(entry.description)}" for entry in value)


def flat(text: str) -> str:
    """In one line."""
    return " ".join(text.split())


def commands() -> list[str]:
    """The commands' own help, as lists."""
    blocks = ["## Command line"]
    for command in sorted(app.registered_commands, key=lambda command: command.callback.__name__):
        hints = get_type_hints(command.callback, include_extras=True)
        found = {name: hint.__metadata__[-1] for name, hint in hints.items() if get_origin(hint) is Annotated}
        places = [info.metavar for info in found.values() if isinstance(info, ArgumentInfo)]
        usage = " ".join(["sound-qkeras", command.callback.__name__, *places, "[OPTIONS]"])
        switches = {name for name, hint in hints.items() if getattr(hint, "__origin__", hint) is bool}
        rows = "\n".join(
            f"- `{flag(name, info, switch=name in switches)}`: {flat(info.help)}" for name, info in found.items()
        )
        blocks += [f"### `{usage}`", flat(command.callback.__doc__), rows]
    return blocks


def flag(name: str, info: ArgumentInfo | OptionInfo, *, switch: bool) -> str:
    """How it is written on the line."""
    if isinstance(info, ArgumentInfo):
        return str(info.metavar)
    long = name.replace("_", "-")
    flags = ", ".join(info.param_decls or ([f"--{long}", f"--no-{long}"] if switch else [f"--{long}"]))
    return flags if info.metavar is None else f"{flags} {info.metavar}"


if __name__ == "__main__":
    FILE.write_text(render(), encoding="utf-8")
