import io

from rich.console import Console
from rich.progress import Progress

from vit_backbones import terminal
from vit_backbones.terminal import track, track_parts


def test_what_is_no_terminal_gets_no_bar(capfd):
    assert list(track([1, 2], 'counting')) == [1, 2]
    assert capfd.readouterr() == ('', '')


def test_parts_have_a_bar_below_that_of_their_item(monkeypatch):
    console = Console(file=io.StringIO(), force_terminal=True)
    bar = Progress(console=console, auto_refresh=False)
    monkeypatch.setattr(terminal, 'progress', lambda: bar)
    seen = []
    for item in track(['a', 'bcd', ''], 'words'):
        for part in track_parts(item, 'letters'):
            seen.append((part, [(task.description, task.completed) for task in bar.tasks]))
    assert seen == [
        ('a', [('words', 0)]),
        *((part, [('words', 1), ('letters', i)]) for i, part in enumerate('bcd')),
    ]
    assert [task.description for task in bar.tasks] == ['words']
    assert list(track_parts('bcd', 'letters')) == list('bcd')
    assert len(bar.tasks) == 1
