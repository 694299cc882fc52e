"""The report: one html page that says what was proved, what it costs, and how to check it again."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from sound_qkeras.errors import InputError
from sound_qkeras.support.files import RESULT, check_writable_file, write_file
from sound_qkeras.support.manifest import add_derived, kind_of
from sound_qkeras.support.reading import read_json

if TYPE_CHECKING:
    from sound_qkeras.results.result import Result

FILE = "report.html"


def write(result: Result, path: str | os.PathLike[str], *, sweep: Iterable[Result] = ()) -> Path:
    """Write the report of a result, as `Result.report` says: the same bytes for the same results.

    In a saved result's directory it becomes one of the result's files: altered, it is refused; it goes when the result is replaced.
    """
    from sound_qkeras.report.page import MARK, page
    from sound_qkeras.results.archive import CERTIFICATE_FILE

    place = check_writable_file(path, MARK).parent
    inside = kind_of(place) == RESULT
    if inside and read_json(place / CERTIFICATE_FILE).get("sha256") != result.certificate.digest:
        raise InputError(f"'{place}' holds another result than the report is about; name a file elsewhere")
    written = write_file(path, page(result, sweep), MARK)
    if inside and written.name == FILE:
        add_derived(place, FILE)
    return written
