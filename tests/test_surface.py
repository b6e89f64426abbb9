"""What users build on, measured by public routes alone and compared with `surface.json`.

`python tests/test_surface.py` writes that file anew. Everything is measured in one process of its
own, so that nothing of it reaches other tests.
"""

import argparse
import contextlib
import fcntl
import importlib
import inspect
import io
import json
import os
import re
import runpy
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path
from unittest import mock

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
SNAPSHOT = Path(__file__).with_name('surface.json')
TOOLS = sorted(path.stem for path in (REPOSITORY / 'tools').glob('[a-z]*.py'))
# What a config's `custom_imports` may name beside `vit_backbones`
CUSTOM_IMPORTS = ['vit_backbones.mmdet', 'vit_backbones.mmseg']
CONFIG_KEYS = [
    'activation_checkpointing',
    'builtin_data',
    'compile',
    'efficient_conv_bn_eval',
    'find_unused_parameters',
    'runner_type',
    'strategy',
]
SHIPPED = [
    'mask2former/mask2former_vit-ti_nuclei.py',
    'vit_adapter/upernet_vit-adapter-ti_camvid.py',
]
RANDOM = ['--model', 'test_vit', '--random-weights', '0']
TRAINED = """
val_dataloader = dict(
    batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(**train_dataloader['dataset'], test_mode=True),
)
test_dataloader = val_dataloader
val_evaluator = test_evaluator = dict({evaluator})
val_cfg = test_cfg = dict()
"""
COCO = {
    'images': [
        {'id': i, 'file_name': f'{n}.png', 'height': 64, 'width': 96}
        for i, n in enumerate('abcdef')
    ],
    'annotations': [
        {
            'id': i,
            'image_id': i,
            'category_id': 1,
            'bbox': [10, 10, 30, 20],
            'segmentation': [[10, 10, 40, 10, 40, 30, 10, 30]],
        }
        for i in range(6)
    ],
    'categories': [{'id': 1, 'name': 'cat'}],
}
# Commands with a path or a name that does not exist
WRONG = {
    'analyze': ['gone'],
    'benchmark growth': ['gone.py'],
    'benchmark quality': ['gone', '--models', 'test_vit', '--random-weights', '0'],
    'benchmark scale': ['gone', *RANDOM, '--folder', 'a'],
    'benchmark speed': ['gone.py'],
    'benchmark step': ['gone.py'],
    'benchmark table': ['gone.json'],
    'benchmark targets': ['gone'],
    'check_config': ['gone.py'],
    'check_models': ['gone'],
    'convert_checkpoint': ['gone.pth', 'a.safetensors', '--model', 'test_vit'],
    'distill': ['test_vit=gone.pth', 'test_vit', 'gone', '--scratch', '--out', 'a'],
    'export_onnx': ['--config', 'gone.py', '--random-weights', '0', '--out', 'a.onnx'],
    'extract_features': ['gone', *RANDOM, '--out', 'a.npz'],
    'predict': ['seg.py', 'gone.pth', 'images', '--out', 'a'],
    'test': ['seg.py', 'gone.pth'],
    'train': ['gone.py'],
    'visualize': ['gone', *RANDOM, '--out', 'a'],
    'vit_backbones list': ['--source', 'gone'],
}


def run(tool, *arguments):
    """Exit code, output and error lines of a tool, or of `python -m vit_backbones`."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            with mock.patch.object(sys, 'argv', [tool, *arguments]):
                if tool == 'vit_backbones':
                    runpy.run_module(tool, run_name='__main__')
                else:
                    runpy.run_path(str(REPOSITORY / f'tools/{tool}.py'), run_name='__main__')
        except SystemExit as error:
            code = error.code or 0
    return code, out.getvalue().splitlines(), err.getvalue().splitlines()


def signature(function):
    """Arguments with their defaults, in their order; those behind '*' go by name."""
    found = inspect.signature(function)
    bare = [each.replace(annotation=each.empty) for each in found.parameters.values()]
    shown = [str(each) for each in bare if each.name != 'self']
    by_name = [str(each) for each in bare if each.kind is each.KEYWORD_ONLY]
    if by_name:
        shown.insert(shown.index(by_name[0]), '*')
    return shown


def arguments_of(registered):
    """Those of a class that is ours: an `__init__` it inherits from a host is the host's."""
    owner = next(each for each in registered.__mro__ if '__init__' in vars(each))
    ours = owner.__module__.startswith('vit_backbones')
    return signature(owner.__init__) if ours else f'as {owner.__name__}'


# What is measured, a function a part


def exported():
    package = importlib.import_module('vit_backbones')
    config = importlib.import_module('vit_backbones.config')
    shapes = importlib.import_module('vit_backbones.shapes')
    module = importlib.import_module('vit_backbones.backbone')
    at_once = any(name.startswith('vit_backbones.evaluation') for name in sys.modules)
    return {
        'an import of vit_backbones imports load_model': at_once,
        'vit_backbones': sorted(package.__all__),
        'vit_backbones.__version__': re.sub(r'\d+', 'N', package.__version__),
        'vit_backbones.backbone.ViTFeatBackbone': module.ViTFeatBackbone is package.ViTFeatBackbone,
        'vit_backbones.config.CONFIGS': list(config.CONFIGS),
        'vit_backbones.config.load_config': signature(config.load_config),
        'vit_backbones.config.use_scope': signature(config.use_scope),
        'vit_backbones.load_model': signature(package.load_model),
        'vit_backbones.shapes.write_shapes': signature(shapes.write_shapes),
        'vit_backbones.training': sorted(package.training.__all__),
    }


def registered():
    from mmengine import registry

    for name in ['vit_backbones', *CUSTOM_IMPORTS]:
        importlib.import_module(name)
    roots = [each for each in vars(registry).values() if isinstance(each, registry.Registry)]
    found = {}
    for each in (each for root in roots for each in (root, *root.children.values())):
        for name, kind in each.module_dict.items():
            if kind.__module__.startswith('vit_backbones'):
                found[f'{each.scope} {each.name} {name}'] = arguments_of(kind)
    return found


def public_names():
    from mmengine.model import BaseModule

    import vit_backbones

    found = {}
    for kind in ('ViTFeatBackbone', 'SimpleFeaturePyramid', 'ViTAdapter'):
        own = set(dir(getattr(vit_backbones, kind))) - set(dir(BaseModule))
        found[kind] = sorted(name for name in own if not name.startswith('_'))
    return found


def backbone():
    from vit_backbones import ViTFeatBackbone

    vit = ViTFeatBackbone('test_vit', out_indices=(1, -1))
    names = 'out_indices out_channels strides num_prefix_tokens depth load_report masks_padding'
    keys = {re.sub(r'\d+', 'N', key) for key in vit.state_dict()}
    oblong = ViTFeatBackbone('test_vit', img_size=(32, 64)).state_dict()
    return {
        'attributes': {name: repr(getattr(vit, name)) for name in names.split()},
        'from_module': signature(ViTFeatBackbone.from_module),
        'preprocess': sorted(vit.preprocess),
        'state dict': sorted(keys),
        'position_grid of images of 32 x 64': repr(oblong['position_grid'].tolist()),
    }


def config_options():
    from vit_backbones.config import load_config

    accepted = {key: load_config('seg.py', [f'{key}=1'])[key] for key in CONFIG_KEYS}
    with pytest.raises(ValueError, match='no_such_key'):
        load_config('seg.py', ['no_such_key=1'])
    return accepted


def bases():
    from vit_backbones.config import load_config

    found = {}
    for name in SHIPPED:
        Path('mine.py').write_text(f"_base_ = 'vit_backbones::{name}'")
        whole = load_config(REPOSITORY / 'configs' / name)
        found[name] = load_config('mine.py').to_dict() == whole.to_dict()
    return found


class Parser(Exception):
    """Carries a tool's parser out of it."""


def flags(tool):
    def give(self, *args, **options):
        raise Parser(self)

    with mock.patch.object(argparse.ArgumentParser, 'parse_args', give):
        try:
            run(tool)
        except Parser as found:
            return flags_of(found.args[0])


def flags_of(parser):
    found, positionals = {}, 0
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found['required command' if action.required else 'command'] = action.dest
            found |= {f'command {k}': flags_of(each) for k, each in action.choices.items()}
        elif not isinstance(action, argparse._HelpAction):
            positionals += not action.option_strings
            name = ', '.join(action.option_strings) or f'{positionals}. {action.dest}'
            found[name] = flag(action, name.lstrip('-').replace('-', '_'))
    groups = parser._mutually_exclusive_groups
    exclusive = [[each.option_strings[0] for each in group._group_actions] for group in groups]
    return found | ({'exclusive': exclusive} if exclusive else {})


def flag(action, usual):
    """What is not as usual about an argument."""
    default = None if action.default is None else repr(action.default)
    given = {
        'action': type(action).__name__.strip('_').removesuffix('Action'),
        'choices': action.choices and list(action.choices),
        'const': action.const,
        'default': default and default.replace(str(REPOSITORY), '.'),
        'dest': None if not action.option_strings or action.dest == usual else action.dest,
        'nargs': action.nargs,
        'required': bool(action.option_strings and action.required) or None,
        'type': action.type and action.type.__name__.strip('_'),
    }
    if given['action'] == 'StoreTrue':
        given = {'action': 'StoreTrue', 'dest': given['dest'], 'required': given['required']}
    return {k: value for k, value in given.items() if value is not None and value != 'Store'}


def module_command():
    code, out, _ = run('vit_backbones')
    listed, lines, _ = run('vit_backbones', 'list', 'vit_tiny_patch16_224.augreg_in21k')
    return {
        'the code says whether there are problems': (code == 0) == (out[-1] == 'no problems'),
        'list': [listed, [re.sub(r' .*', '', line) for line in lines]],
        'list, flags': flags('vit_backbones'),
    }


def exit_codes():
    codes = {f'{tool} --help': run(tool, '--help')[0] for tool in [*TOOLS, 'vit_backbones']}
    for command, arguments in WRONG.items():
        code, _, lines = run(*command.split(), *arguments)
        codes[f'{command}, wrong path'] = [code, *(line.split()[0] for line in lines)]
    codes['check_config, in order'] = run('check_config', 'seg.py', '--dataset', 'own')[0]
    wrong = ['--cfg-options', 'model.backbone.out_indices=9']
    codes['check_config, with an error'] = run('check_config', 'seg.py', *wrong)[0]
    return codes


def training():
    """Files of a work dir after a training on own data and a test, and keys of what is JSON."""
    from vit_backbones import __version__  # noqa: F401  (lets PyTorch read checkpoints)

    twice = ['--cfg-options', 'train_cfg.max_epochs=2']
    code, out, _ = run('train', 'seg.py', '--dataset', 'own', '--work-dir', 'w', *twice)
    found = {'train': [code, closing(out)]}
    places = ['--work-dir', 'w', '--show-dir', 'shown']
    code, out, _ = run('test', 'w/seg.py', 'w/epoch_2.pth', *places)
    found['test'] = [code, closing(out)]
    files = [path for path in Path('w').rglob('*') if path.is_file()]
    found['work dir'] = sorted({re.sub(r'\d{8}_\d{6}', 'TIME', str(path)) for path in files})
    coco = ['--dataset', 'a.json', '--images', 'own/images', '--work-dir', 'c']
    limits = ['rpn_proposal.max_per_img=20', 'rcnn.sampler.num=16']
    few = [
        '--cfg-options',
        'train_cfg.val_begin=9',
        *(f'model.train_cfg.{each}' for each in limits),
    ]
    found['train on COCO'] = run('train', 'det.py', *coco, *few)[0]
    found['--show-dir'] = sorted(map(str, Path('shown').iterdir()))
    for path in [*Path('w').glob('*.json'), *Path('c/dataset').iterdir()]:
        found[f'keys of {path}'] = sorted(json.loads(path.read_text()))
    return found | checkpoint('w/epoch_2.pth')


def closing(lines):
    """The last line without its numbers; the best epoch is named where it is not the last."""
    return re.sub(r'[\d.]+', 'N', re.sub(r' \(best .*?\)', '', lines[-1]))


def checkpoint(path):
    import torch

    content = torch.load(path, weights_only=True)
    known = content['message_hub']['runtime_info']
    return {
        'keys of a checkpoint': sorted(content),
        'message hub': {
            name: type(known[name]).__name__ for name in ('metric_history', 'trained_seconds')
        },
    }


def features():
    """Layout of what extract_features.py writes."""
    import numpy as np
    import pyarrow.parquet
    from safetensors import safe_open

    wanted = {
        'a.parquet': [],
        'a.npz': ['--layers', '0', '5'],
        'a.safetensors': ['--out-type', 'raw'],
    }
    for name, options in wanted.items():
        code, _, err = run('extract_features', 'images', *RANDOM, *options, '--out', name)
        assert code == 0, err
    schema = pyarrow.parquet.read_schema('a.parquet')
    metadata = {'a.parquet': schema.metadata[b'vit_backbones']}
    found = {'a.parquet': dict(zip(schema.names, map(str, schema.types), strict=True))}
    with np.load('a.npz') as arrays:
        metadata['a.npz'] = str(arrays['vit_backbones'])
        found['a.npz'] = {k: f'{v.dtype.kind} {v.ndim}-D' for k, v in arrays.items()}
    with safe_open('a.safetensors', framework='numpy') as file:
        metadata['a.safetensors'] = file.metadata()['vit_backbones']
        found['a.safetensors'] = {key: file.get_slice(key).get_dtype() for key in file.keys()}
    return found | {f'metadata of {k}': sorted(json.loads(v)) for k, v in metadata.items()}


def unfinished_features():
    """What is left of a run that could not put its output in place."""
    from safetensors import safe_open

    replace = os.replace

    def full(source, target):
        if Path(target).name == 'half.npz':
            raise OSError(28, 'No space left on device')
        return replace(source, target)

    with mock.patch('os.replace', full):
        code, _, lines = run('extract_features', 'images', *RANDOM, '--out', 'half.npz')
    (folder,) = Path().glob('.half*')
    with safe_open(next(folder.glob('*.safetensors')), framework='numpy') as part:
        tensors, metadata = sorted(part.keys()), sorted(part.metadata())
    job = json.loads((folder / 'job.json').read_text())
    found = {
        'exit code and line': [code, *lines],
        'folder': str(folder),
        'files': sorted(path.name for path in folder.iterdir()),
        'job.json': {key: re.sub('[0-9a-f]', 'x', value) for key, value in job.items()},
        'tensors of a part': tensors,
        'metadata of a part': metadata,
    }
    found['goes on'] = ' of them from an earlier run' in ''.join(
        run('extract_features', 'images', *RANDOM, '--out', 'half.npz')[1]
    )
    return found


PARTS = {
    'exported': exported,
    'registered': registered,
    'public names': public_names,
    'backbone': backbone,
    'config options': config_options,
    'bases': bases,
    'python -m vit_backbones': module_command,
    'exit codes': exit_codes,
    'training': training,
    'features': features,
    'unfinished features': unfinished_features,
} | {f'flags of {tool}': lambda tool=tool: flags(tool) for tool in TOOLS}


def measure(folder):
    """All parts as JSON, measured in `folder`; a traceback stands for one that fails."""
    import numpy as np
    from checked_configs import DETECTOR, SEGMENTER
    from PIL import Image

    os.chdir(folder)
    Path('seg.py').write_text(SEGMENTER + TRAINED.replace('{evaluator}', "type='IoUMetric'"))
    Path('det.py').write_text(
        DETECTOR + TRAINED.replace('{evaluator}', "type='CocoMetric', metric='bbox'")
    )
    Path('a.json').write_text(json.dumps(COCO))
    for place in ('images', 'own/images', 'own/masks'):
        Path(place).mkdir(parents=True)
    picture, mask = np.full((64, 96, 3), 99, np.uint8), np.repeat(np.uint8([[0, 1]]), 48, 1)
    for name in 'abcdef':
        Image.fromarray(picture).save(f'own/images/{name}.png')
        Image.fromarray(mask.repeat(64, 0)).save(f'own/masks/{name}.png')
    for name, height in (('a', 40), ('b', 64)):
        Image.fromarray(picture[:height]).save(f'images/{name}.png')
    found = {}
    for name, part in PARTS.items():
        try:
            found[name] = part()
        except Exception:
            found[name] = traceback.format_exc().splitlines()
    return json.dumps(found, indent=1, sort_keys=True) + '\n'


@pytest.fixture(scope='module')
def today(tmp_path_factory):
    """What `measure` finds, in a process of its own."""
    # the processes of pytest-xdist share the folder above theirs: the first one measures for all
    shared = tmp_path_factory.getbasetemp()
    shared = shared.parent if 'PYTEST_XDIST_WORKER' in os.environ else shared
    out = shared / 'surface.json'
    with (shared / 'surface.lock').open('w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not out.exists():
            environment = os.environ | {'OMP_NUM_THREADS': '1'}
            subprocess.run([sys.executable, __file__, out], env=environment, check=True)
    return json.loads(out.read_text())


def recorded(name):
    return json.loads(SNAPSHOT.read_text()).get(name)


@pytest.mark.parametrize('name', sorted(PARTS.keys() - {'public names'}))
def test_is_as_recorded(name, today):
    if name == 'features':
        pytest.importorskip('pyarrow')
    assert today[name] == recorded(name)


def test_no_public_name_goes(today):
    for kind, names in recorded('public names').items():
        assert not set(names) - set(today['public names'][kind]), kind


def test_every_recorded_part_is_measured(today):
    assert sorted(json.loads(SNAPSHOT.read_text())) == sorted(today)


if __name__ == '__main__':
    sys.path.insert(0, str(REPOSITORY))
    sys.path.append(str(REPOSITORY / 'tools'))
    target = Path(sys.argv[1] if sys.argv[1:] else SNAPSHOT).resolve()
    with tempfile.TemporaryDirectory() as place:
        target.write_text(measure(place))
