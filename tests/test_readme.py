"""What the README and the manual show works as it stands there."""

import importlib
import importlib.util
import json
import re
import shlex
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest
import timm
import torch
from checked_configs import errors_of
from mmcv.transforms import TRANSFORMS
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope
from PIL import Image

from vit_backbones import ViTFeatBackbone  # (mmcv's operators)
from vit_backbones import __main__ as report
from vit_backbones.checks.wiring import wiring_findings
from vit_backbones.config.loading import load_config

ROOT = Path(__file__).resolve().parents[1]
MANUAL = [path for path in sorted((ROOT / 'docs').glob('*.md')) if path.stem != 'photos']
PAGES = [
    ROOT / 'README.md',
    ROOT / 'CONTRIBUTING.md',
    *MANUAL,
    *sorted((ROOT / 'configs').glob('*/README.md')),
]
README = (ROOT / 'README.md').read_text()
BLOCKS = re.findall(
    r'```python\n(.*?)```',
    README + '\n'.join(path.read_text() for path in MANUAL),
    re.DOTALL,
)
CONFIGS = [block for block in BLOCKS if block.startswith("_base_ = 'mm")]
TOOLS = {path.stem: path for path in (ROOT / 'tools').glob('[!_]*.py')}
TOOLS['tables'] = ROOT / 'docs/tables.py'
ACTIONS = {
    'benchmark': ['speed', 'step', 'growth', 'scale', 'quality', 'study', 'table', 'targets'],
    'tables': ['add', 'check'],
}
of_each_page = pytest.mark.parametrize(
    'page', PAGES, ids=lambda path: str(path.relative_to(ROOT).with_suffix(''))
)


@cache
def parser(tool):
    """The function that parses the command line of a tool."""
    if tool == '-m':
        return report.parse_args
    spec = importlib.util.spec_from_file_location(f'tool_{tool}', TOOLS[tool])
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.parse_args


def commands(page):
    """The commands on a page, in its blocks and within its sentences."""
    text = page.read_text()
    blocks = re.findall(r'```bash\n(.*?)```', text, re.DOTALL)
    lines = '\n'.join(blocks).replace('\\\n', ' ').splitlines()
    lines += re.findall(r'`((?:python|make|torchrun) [^`]+)`', text.replace('```', ''))
    joined = []  # synopses go on in lines that begin with blanks
    for line in lines:
        if line.startswith('  ') and joined:
            joined[-1] += line
        else:
            joined.append(line)
    return [line for line in joined if line.strip()]


def arguments(command):
    """The tool of a command, if it has one, and the words behind it."""
    words = shlex.split(command, comments=True)
    for place, word in enumerate(words):
        path = ROOT / word
        if path.suffix == '.py' and word.startswith(('tools/', 'docs/')):
            assert path in TOOLS.values(), f'{word} does not exist'
            return path.stem, words[place + 1 :]
        if words[place : place + 2] == ['-m', 'vit_backbones']:
            name = next(iter(words[place + 2 :]), None)
            return (name, words[place + 3 :]) if name in TOOLS else ('-m', words[place + 2 :])
    return None, words


def flags(tool, words, capsys):
    """The options of a tool, or of its action that the words name."""
    action = words[:1] if tool in ACTIONS else []
    with pytest.raises(SystemExit):
        parser(tool)([*action, '--help'])
    return set(re.findall(r'--[a-z][a-z-]*', capsys.readouterr().out))


def anchors(page):
    """The anchors that GitHub gives the headings of a page."""
    text = re.sub(r'```.*?```', '', page.read_text(), flags=re.DOTALL)
    headings = re.findall(r'^#+ (.+)$', text, re.MULTILINE)
    return {re.sub(r'[^\w -]', '', each.lower()).replace(' ', '-') for each in headings}


def test_readme_is_short():
    assert len(README.splitlines()) <= 250


@pytest.mark.parametrize('page', MANUAL, ids=lambda path: path.stem)
def test_page_of_the_manual_starts_with_code(page):
    assert re.match(r'# .+\n\n```(bash|python)\n', page.read_text())


@pytest.mark.parametrize('page', MANUAL, ids=lambda path: path.stem)
def test_page_of_the_manual_is_linked_from_the_readme(page):
    assert f'](docs/{page.name})' in README


@of_each_page
def test_links_lead_somewhere(page):
    for link in re.findall(r'\]\(([^)\s]+)\)', page.read_text()):
        if not link.startswith(('http://', 'https://')):
            path, _, anchor = link.partition('#')
            target = page.parent / path if path else page
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


@of_each_page
def test_commands_are_those_of_the_tools(page, capsys):
    make = re.findall(r'^([a-z-]+):', (ROOT / 'Makefile').read_text(), re.MULTILINE)
    for command in commands(page):
        tool, words = arguments(command)
        if words[:1] == ['make']:
            assert {word for word in words[1:] if '=' not in word} <= set(make), command
        if tool is None:
            continue
        if '[' in command or '...' in words:  # a synopsis
            used = set(re.findall(r'--[a-z][a-z-]*', ' '.join(words)))
            assert used <= flags(tool, words, capsys), command
        else:
            parser(tool)(words)


@of_each_page
def test_options_in_sentences_are_those_of_a_tool(page, capsys):
    known = {'--no-deps', '--local-dir'}  # pip's and hf's
    for tool in TOOLS:
        for action in ACTIONS.get(tool, ['']):
            known |= flags(tool, [action], capsys)
    used = set(re.findall(r'`(--[a-z][a-z-]*)', page.read_text()))
    assert used <= known


@of_each_page
def test_paths_exist(page):
    paths = r'(?<![\w./])(?:\.\./)*((?:configs|docs|tools|tests|vit_backbones)/[\w./-]+)'
    for path in re.findall(paths, page.read_text()):
        path = path.rstrip('.')
        if not re.search(r'/[A-Z_]+$', path):  # no stand-in, such as CONFIG
            assert (ROOT / path).exists(), path


@of_each_page
def test_modules_of_custom_imports_exist(page):
    for names in re.findall(r'imports=\[([^]]+)\]', page.read_text()):
        for name in re.findall(r"'([^']+)'", names):
            assert importlib.import_module(name).__name__ == name


def rows_of_backbones():
    """Cells of the README's table of backbones."""
    table = README.split('## Choose a backbone')[1].split('## ')[0]
    lines = [line for line in table.splitlines() if line.startswith('|')][2:]
    return [[cell.strip() for cell in line.strip('|').split('|')] for line in lines]


@pytest.mark.parametrize('row', rows_of_backbones(), ids=lambda row: row[1].split('`')[1])
def test_a_backbone_has_the_licence_the_weights_and_the_size_it_says(row):
    _, linked, parameters, licence, *_ = row
    name, link = re.fullmatch(r'\[`(.+)`\]\((.+)\)', linked).groups()
    source = 'sapiens' if name.startswith('sapiens') else 'timm'
    if source == 'timm':
        config = timm.get_pretrained_cfg(name)
        assert re.sub(r'\[(.+)\]\(.+\)', r'\1', licence) == config.license
        assert link == f'https://huggingface.co/{config.hf_hub_id}'
    with torch.device('meta'):
        vit = ViTFeatBackbone(name, source=source)
    number = sum(each.numel() for each in vit.parameters())
    assert parameters == f'{number / 1e6:.1f} M'


@pytest.mark.parametrize('row', rows_of_backbones(), ids=lambda row: row[1].split('`')[1])
def test_a_backbone_is_that_of_its_file(row):
    base = row[0].strip('`')
    if base != 'none':
        told = load_config(ROOT / f'configs/_base_/backbones/{base}.py').backbone
        name = row[1].split('`')[1]
        assert told.model_name == name or timm.get_pretrained_cfg(told.model_name).hf_hub_id in (
            f'timm/{name}',
        )


def runs():
    """All trainings in docs/results."""
    single = [json.loads(path.read_text()) for path in (ROOT / 'docs/results').glob('*.json')]
    return single + json.loads((ROOT / 'docs/results/study/results.json').read_text())['rows']


def results():
    """Values of all runs in docs/results, as they are written."""
    return {f'{run["value"]:.3f}' for run in runs()}


def test_recipes_are_not_run_where_docs_results_has_none():
    trained = {run['config'] for run in runs()}
    folders = [path.parent for path in (ROOT / 'configs').glob('*/README.md')]
    rows = [
        (f'configs/{folder.name}/{name}', row)
        for folder in folders
        for row, name in re.findall(
            r'^(\| `(\w[\w.-]*\.py)`.*)$', (folder / 'README.md').read_text(), re.MULTILINE
        )
    ]
    assert len(rows) > 50
    assert {name for name, row in rows if 'results.md#' in row} == trained & {n for n, _ in rows}
    assert not [name for name, row in rows if ('not run' in row) == (name in trained)]


def test_figures_of_backbones_are_those_of_results():
    reached = results()
    measured = [row[-1] for row in rows_of_backbones()]
    assert all(
        cell == 'not run' or set(re.findall(r'0\.\d{3}', cell)) <= reached for cell in measured
    )


def test_figures_of_choices_are_those_of_results():
    page = (ROOT / 'docs/choose.md').read_text()
    assert set(re.findall(r'0\.\d{3}', page)) <= results()


@pytest.mark.parametrize('block', CONFIGS, ids=lambda block: block[9:14])
def test_config_fragment_builds_and_fits(block, tmp_path):
    path = tmp_path / 'config.py'
    path.write_text(block)
    cfg = Config.fromfile(path)
    cfg.model.backbone.checkpoint = None
    init_default_scope(cfg.default_scope)
    model = MODELS.build(cfg.model).eval()
    assert not errors_of(wiring_findings(model))
    maps = model.extract_feat(torch.zeros(1, 3, 64, 96))
    sizes = [(16, 24), (8, 12), (4, 6), (2, 3), (1, 2)]
    assert [tuple(each.shape[-2:]) for each in maps] == sizes[: len(maps)]
    assert len(maps) == len(model.neck.strides)


def test_both_toolboxes_are_shown():
    assert [re.search(r"'(\w+)::", block)[1] for block in CONFIGS] == ['mmdet', 'mmseg']


def test_recipe_is_inherited_as_shown(tmp_path):
    (tmp_path / 'mine.py').write_text(next(b for b in BLOCKS if 'linear_vit-b-dinov2_ade20k' in b))
    cfg = load_config(tmp_path / 'mine.py')
    assert (cfg.train_dataloader.batch_size, cfg.model.type) == (4, 'EncoderDecoder')


def test_images_of_four_bands_with_16_bits_are_read_whole_as_shown(tmp_path):
    (tmp_path / 'mine.py').write_text(next(b for b in BLOCKS if "color_type='unchanged'" in b))
    cfg = load_config(tmp_path / 'mine.py')
    given = np.arange(64, dtype=np.uint16).reshape(4, 4, 4) * 1000
    cv2.imwrite(str(tmp_path / '0.tif'), given)
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        load = TRANSFORMS.build(loader.dataset.pipeline[0])
        assert (load(dict(img_path=str(tmp_path / '0.tif')))['img'] == given).all()
    assert cfg.model.backbone.in_channels == len(cfg.model.data_preprocessor.mean) == 4


def test_colours_become_numbers_as_shown(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ('mine/colours', 'mine/masks'):
        (tmp_path / folder).mkdir(parents=True)
    colours = np.array([[[0, 0, 0], [255, 0, 0], [0, 255, 0], [1, 2, 3]]], np.uint8)
    Image.fromarray(colours).save('mine/colours/0.png')
    exec(next(block for block in BLOCKS if 'mine/colours' in block), {})
    assert np.asarray(Image.open('mine/masks/0.png')).tolist() == [[0, 1, 2, 255]]


def test_recipes_and_backbones_are_those_that_ship():
    configs = ROOT / 'configs'
    folders = {path.parent.name for path in configs.glob('[!_]*/*.py')}
    assert set(re.findall(r'\]\(configs/(\w+)\)', README)) == folders
    names = {row[0].strip('`') for row in rows_of_backbones()} - {'none'}
    assert names == {path.stem for path in (configs / '_base_/backbones').glob('*.py')}


@pytest.mark.parametrize(
    'path', sorted((ROOT / 'configs').glob('*/README.md')), ids=lambda p: p.parent.name
)
def test_readme_of_a_method_names_its_configs(path):
    names = {each.name for each in path.parent.glob('*.py')}
    assert set(re.findall(r'^\| `(.+?)`', path.read_text(), re.MULTILINE)) == names


def test_features_in_python_have_the_shapes_it_says():
    block = next(block for block in BLOCKS if 'embeddings' in block)
    names = {}
    exec(block.replace('pretrained=True', 'pretrained=False'), names)
    assert [tuple(each.shape) for each in names['maps']] == [(1, 192, 16, 21)] * 2
    assert tuple(names['embeddings'].shape) == (1, 192)


def test_optimizer_builds_as_shown():
    block = next(block for block in BLOCKS if block.startswith('optim_wrapper'))
    names = {}
    exec(block, names)
    vit = MODELS.build(dict(type='ViTFeatBackbone', model_name='test_vit'))
    groups = build_optim_wrapper(vit, names['optim_wrapper']).optimizer.param_groups
    assert {round(group['lr'] / 1e-4, 4) for group in groups} == {
        round(0.7**power, 4) for power in range(8)
    }


def test_vitdets_backbone_builds_as_shown():
    block = next(block for block in BLOCKS if 'use_rel_pos' in block)
    names = {}
    exec(block, names)
    vit = MODELS.build(names['backbone'] | dict(checkpoint=None))
    tables = {len(block.attn.rel_pos_h) for block in vit.vit.blocks}
    assert tables == {2 * 14 - 1, 2 * 64 - 1}


def test_adapter_builds_and_fits_as_shown():
    block = next(block for block in BLOCKS if 'ViTAdapter' in block)
    names = {}
    exec(block, names)
    backbone = MODELS.build(names['model']['backbone'])
    assert list(backbone.out_channels) == names['model']['decode_head']['in_channels']
    maps = backbone.eval()(torch.zeros(1, 3, 64, 96))
    assert [tuple(each.shape[-2:]) for each in maps] == [(16, 24), (8, 12), (4, 6), (2, 3)]


def test_preprocessor_of_mask_padding_is_the_one_shown():
    block = next(block for block in BLOCKS if 'mask_padding=True' in block)
    names = {}
    exec(block, names)
    for module in names['custom_imports']['imports']:
        importlib.import_module(module)
    vit = ViTFeatBackbone('test_vit', **names['model']['backbone'])
    MODELS.build(names['model']['data_preprocessor'])(
        dict(inputs=[torch.zeros(3, 20, 30), torch.zeros(3, 24, 28)], data_samples=None)
    )
    assert vit._image_sizes.sizes == [(20, 30), (24, 28)]
