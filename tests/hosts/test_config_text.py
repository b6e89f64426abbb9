"""A config's text is formatted once, and is the one that MMEngine writes."""

import pytest
from mmengine.config import Config

from vit_backbones.hosts import config_text

FormatCode = config_text.FormatCode  # yapf's own


@pytest.fixture
def formatted(monkeypatch):
    """Texts that yapf formats."""
    texts = []

    def format_code(text, *others, **options):
        texts.append(text)
        return FormatCode(text, *others, **options)

    monkeypatch.setattr(config_text, 'FormatCode', format_code)
    config_text._formatted.cache_clear()
    return texts


def test_the_text_is_formatted_once_and_again_when_it_changes(formatted, tmp_path, monkeypatch):
    cfg = Config(dict(model=dict(type='A', sizes=[1, 2]), name="it's"))
    texts = [cfg.pretty_text, cfg.pretty_text]
    cfg.dump(tmp_path / 'dumped.py')
    assert len(formatted) == 1
    cfg.model.sizes = [3]
    texts += [cfg.pretty_text]
    assert len(formatted) == 2
    monkeypatch.setattr(config_text.HOLDER, 'FormatCode', FormatCode)  # as MMEngine has it
    assert texts[2] == cfg.pretty_text
    cfg.model.sizes = [1, 2]
    assert texts[:2] == [cfg.pretty_text] * 2
    assert (tmp_path / 'dumped.py').read_text() == cfg.pretty_text


class Odd:
    def __str__(self):
        return '<odd>'


def test_a_text_that_is_no_python_fails_as_before():
    cfg = Config()
    cfg.odd = Odd()
    with pytest.raises(SyntaxError, match='Failed to format'):
        _ = cfg.pretty_text


def test_other_uses_of_yapf_are_not_changed(formatted):
    config_text.install()
    for options in ({}, dict(style_config='google'), dict(style_config=None)):
        expected = FormatCode('a = {  1:2 }\n', **options)
        assert config_text.HOLDER.FormatCode('a = {  1:2 }\n', **options) == expected
    assert config_text.HOLDER.FormatCode('a =  1\n', '<stdin>', 'pep8') == ('a = 1\n', True)
    assert config_text._formatted.cache_info().currsize == 0
