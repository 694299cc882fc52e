"""Progress is told to a callable, drawn where somebody sees it, and nothing elsewhere."""

import sys
from types import SimpleNamespace

import pytest

import sound_qkeras as sq
from sound_qkeras.errors import InputError
from sound_qkeras.support import progress


def test_a_callable_is_told_itself():
    told = []
    with progress.shown(lambda *report: told.append(report)) as tell:
        tell("prove", 0.5)
    assert told == [("prove", 0.5)]


@pytest.mark.parametrize("nothing", [False, None, True])
def test_nothing_is_written_where_nobody_sees_it(capfd, nothing):
    with progress.shown(nothing) as tell:
        tell("prove", 0.5)
    assert capfd.readouterr() == ("", "")


def test_what_is_neither_is_refused():
    with pytest.raises(InputError, match=r"progress is 'yes'; accepted: True for bars"):
        sq.sweep(None, [1.0], (0, 1), progress="yes")


class Page:
    """A notebook's cell, and the module that writes into it."""

    HTML = str

    def __init__(self):
        self.shown = []

    def DisplayHandle(self):  # noqa: N802
        return SimpleNamespace(display=self.shown.append, update=self.shown.append)


def test_a_notebook_has_one_bar_that_goes_when_the_work_is_done(monkeypatch):
    page = Page()
    ipython = SimpleNamespace(get_ipython=lambda: SimpleNamespace(kernel=object()), display=page)
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    with progress.shown(True) as tell:
        tell("prove <b>", 0.999)
    assert [text for text in page.shown if "prove &lt;b&gt;" in text and "99%" in text]
    assert page.shown[-1] == ""


def test_a_stage_that_ended_has_no_time_left():
    rich = pytest.importorskip("rich.progress")
    column = progress.left_column()
    bars = rich.Progress(column)
    bars.add_task("prove", total=1.0, completed=0.999)
    task = bars.tasks[0]
    assert column.render(task).plain.startswith(" 99%")
    bars.update(task.id, completed=1.0)
    assert column.render(task).plain == "100%"
