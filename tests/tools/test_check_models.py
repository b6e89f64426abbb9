"""The walk over timm's transformers: what it sees, writes and skips."""

import json

import _comparison as comparison
import pytest
import timm
from conftest import load_tool
from redraw import TINY

from vit_backbones.sources.timm_any import TimmAny


@pytest.fixture
def tool():
    return load_tool('check_models')


@pytest.fixture
def two(monkeypatch):
    """A world of two architectures, whose comparison is counted instead of made."""
    calls = []

    def check(module, name):
        calls.append(name)
        return comparison.Check(module, name, 'works', 'any size', 0.0)

    monkeypatch.setattr(
        comparison, 'architectures', lambda: [('vision_transformer', TINY), ('x', 'b')]
    )
    monkeypatch.setattr(comparison, 'check', check)
    return calls


def test_walk_covers_timms_transformers_and_no_convolutions():
    names = {name for _, name in comparison.architectures()}
    assert len(names) >= 695
    assert {'vit_tiny_patch16_224', 'swin_tiny_patch4_window7_224', 'xcit_nano_12_p16_224'} <= names
    assert not {'resnet50', 'convnext_tiny'} & names
    assert all(timm.is_model(name) for name in names)


@pytest.mark.parametrize('damage', ['normed', 'tokens'])
def test_comparison_sees_damage(damage, monkeypatch):
    """A norm left out, maps transposed."""
    if damage == 'normed':
        monkeypatch.setattr(TimmAny, 'normed', lambda self, vit, tokens: tokens)
    else:
        true = TimmAny.tokens

        def flipped(self, *args):
            return [t._replace(patches=t.patches.flip(1)) for t in true(self, *args)]

        monkeypatch.setattr(TimmAny, 'tokens', flipped)
    result = comparison.check('xcit', 'xcit_nano_12_p16_224')
    assert (result.status, result.how) == ('fails', 'differs')


def test_walk_goes_on_where_it_was(tool, two, tmp_path):
    out = tmp_path / 'timm.json'
    assert tool.main(['--out', str(out)]) == 0
    rows = json.loads(out.read_text())
    out.write_text(json.dumps(rows[:1]))
    assert tool.main(['--out', str(out)]) == 0
    assert two == [TINY, 'b', 'b']
    assert json.loads(out.read_text()) == rows
    assert '2 of 2 architectures work (100.0 %), 0 fail' in out.with_suffix('.md').read_text()


def test_sample_writes_nothing_and_depends_on_the_seed(tool, two, tmp_path):
    out = tmp_path / 'timm.json'
    for seed in range(8):
        assert tool.main(['--sample', '1', '--seed', str(seed), '--out', str(out)]) == 0
    assert not out.exists()
    assert set(two) == {TINY, 'b'}


def test_unknown_name_is_one_line(tool, two, capsys):
    assert tool.main(['resnet50']) == 2
    assert capsys.readouterr().err == 'error: no transformer of timm: resnet50\n'


@pytest.mark.parametrize('content', [None, 'no JSON', '[1]', '[{}]', '[{"name": 1, "x": 2}]'])
def test_broken_output_is_one_line(content, tool, two, tmp_path, capsys):
    out = tmp_path / 'timm.json'
    if content is None:
        out.mkdir()
    else:
        out.write_text(content)
    assert tool.main(['--out', str(out)]) == 2
    error = capsys.readouterr().err
    assert error.startswith('error: ')
    assert str(out) in error
    assert error.count('\n') == 1
    assert two == []


def test_failure_is_the_exit_code(tool, monkeypatch):
    monkeypatch.setattr(comparison, 'architectures', lambda: [('m', 'a')])
    monkeypatch.setattr(
        comparison, 'check', lambda m, n: comparison.Check(m, n, 'fails', 'differs', 9.0)
    )
    assert tool.main(['a']) == 1
