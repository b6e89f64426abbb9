"""The manual as a site: every page is reached, the reference is whole, faults end a build."""

import ast
import importlib
import os
import pkgutil
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

import vit_backbones

ROOT = Path(__file__).resolve().parents[1]
SITE = yaml.safe_load((ROOT / 'mkdocs.yml').read_text())
VENV = Path(os.environ.get('DOCS_VENV', ROOT / '.venv-docs')).absolute()
REFERENCE = re.findall(
    r'^::: (\S+)$',
    '\n'.join(path.read_text() for path in (ROOT / 'docs/reference').glob('*.md')),
    re.MULTILINE,
)


def patterns_of_pages():
    """`PAGES` of the hook, which only an environment with MkDocs can import."""
    for node in ast.parse((ROOT / 'docs/site_pages.py').read_text()).body:
        if isinstance(node, ast.Assign) and node.targets[0].id == 'PAGES':
            return ast.literal_eval(node.value)


PAGES = {str(p.relative_to(ROOT)) for pattern in patterns_of_pages() for p in ROOT.glob(pattern)}


def pages_in(nav):
    """Paths at any depth of the menu."""
    if isinstance(nav, str):
        return [nav]
    return [
        page for each in (nav.values() if isinstance(nav, dict) else nav) for page in pages_in(each)
    ]


def test_menu_has_every_page_once():
    named = [*pages_in(SITE['nav']), *(line[1:] for line in SITE['not_in_nav'].split())]
    assert sorted(named) == sorted(PAGES)


def test_a_page_outside_the_menu_is_linked_from_one():
    links = ''.join((ROOT / page).read_text() for page in pages_in(SITE['nav']))
    for page in SITE['not_in_nav'].split():
        assert re.search(rf'\]\([^)]*{Path(page).name}\)', links), page


def test_reference_has_all_public_names():
    """A module shows what its `__all__` names, and one without it all that it defines."""
    shown = set()
    for name in REFERENCE:
        found = pkgutil.resolve_name(name)
        shown |= set(getattr(found, '__all__', vars(found))) | {name.split('.')[-1]}
    rooms = [importlib.import_module(f'vit_backbones.{name}') for name in ('mmdet', 'mmseg')]
    public = {name for room in (vit_backbones, *rooms) for name in room.__all__}
    assert public - shown == {'__version__'}


@pytest.mark.parametrize('page', sorted(PAGES))
def test_lists_follow_an_empty_line(page):
    """GitHub needs none, Python-Markdown shows them as text without."""
    text = re.sub(r'```.*?```', '', (ROOT / page).read_text(), flags=re.DOTALL)
    starts = r'^(?! *[-|<]| *\d+\. |  |#)\S.*\n(?:- |\d+\. ).*'
    assert re.findall(starts, text, re.MULTILINE) == []


def test_a_fault_of_each_kind_ends_make_docs(tmp_path):
    if not (VENV / '.stamp').exists() or shutil.which('make') is None:
        pytest.skip(f'make docs has not written {VENV.name}')
    for name in ('docs', 'configs'):
        shutil.copytree(ROOT / name, tmp_path / name)
    for path in ROOT.glob('[!.]*.*'):
        if path.is_file():
            shutil.copy(path, tmp_path)
    for name in ('vit_backbones', 'LICENSE', 'Makefile'):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / 'docs/new.md').write_text(
        '# New\n\n[a](gone.md) [b](train.md#gone) [c](../configs/gone) [d](../README.md#start)\n'
    )
    done = subprocess.run(
        ['make', 'docs', f'DOCS_VENV={VENV}'], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert 'Aborted with 4 warnings in strict mode!' in done.stdout
    for fault in ('docs/new.md\n', "'gone.md'", "anchor '#gone'", "'../configs/gone'"):
        assert fault in done.stderr
