"""Exported files against the backbone itself, each run by its own library."""

import copy
import json
import sys

import onnx
import onnxruntime
import pytest
import torch
from redraw import backbone, images

from vit_backbones import SimpleFeaturePyramid
from vit_backbones.export import Graph, export, formats, writing
from vit_backbones.models.chosen import Loaded
from vit_backbones.models.random_weights import redraw

NAME, SIZE = 'test_vit', (60, 44)  # patches of 16
MEAN, STD = (100.0, 110.0, 120.0), (50.0, 60.0, 70.0)


def loaded(name=NAME, **options):
    return Loaded(backbone(name, depth=2, **options), name, 'random', MEAN, STD)


@pytest.fixture(scope='module')
def vit():
    return loaded(out_indices=(1, 0))


def run_onnx(path, x):
    session = onnxruntime.InferenceSession(path)
    return [torch.from_numpy(each) for each in session.run(None, {'images': x.numpy()})]


RUNS = {
    '.onnx': run_onnx,
    '.pt': lambda path, x: torch.jit.load(path)(x),
    '.pt2': lambda path, x: torch.export.load(path).module()(x),
}


@torch.no_grad()
def difference(path, model, x):
    """The largest one between a file and a model, in units of the magnitude."""
    outputs, expected = RUNS[path.suffix](path, x), model(x)
    assert [tuple(o.shape) for o in outputs] == [tuple(e.shape) for e in expected]
    pairs = zip(outputs, expected, strict=True)
    return max(((o - e).abs().max() / e.abs().max()).item() for o, e in pairs)


@pytest.mark.parametrize('suffix', RUNS)
def test_a_file_gives_what_the_backbone_gives(vit, tmp_path, suffix):
    path = export(Graph(vit), tmp_path / f'vit{suffix}', size=SIZE).path
    assert difference(path, vit.backbone, images(*SIZE)) < 1e-4


@pytest.mark.parametrize('suffix', ['.onnx', '.pt'])
def test_images_of_any_size(vit, tmp_path, suffix):
    path = export(Graph(vit), tmp_path / f'vit{suffix}', dynamic=True).path
    for batch, size in ((1, (160, 160)), (4, (33, 201))):  # 160: the table as it is
        assert difference(path, vit.backbone, images(*size, batch=batch)) < 1e-4


@pytest.mark.slow
def test_images_of_any_size_with_torch_export(vit, tmp_path):
    path = export(Graph(vit), tmp_path / 'vit.pt2', dynamic=True).path
    for batch, size in ((1, (160, 160)), (4, (33, 201))):
        assert difference(path, vit.backbone, images(*size, batch=batch)) < 1e-4


def test_batches_of_any_number(vit, tmp_path):
    exported = export(Graph(vit), tmp_path / 'vit.onnx', size=SIZE, dynamic=True)
    assert difference(exported.path, vit.backbone, images(*SIZE, batch=5)) < 1e-4
    assert exported.outputs == {'layer_1': ('batch', 64, 4, 3), 'layer_0': ('batch', 64, 4, 3)}


def test_rotary_positions_fit_any_size(tmp_path):
    vit = loaded('vit_small_patch16_dinov3', width=48)
    path = export(Graph(vit), tmp_path / 'vit.onnx', dynamic=True).path
    assert difference(path, vit.backbone, images(33, 201)) < 1e-4


@pytest.mark.parametrize(
    'options',
    [
        dict(out_type='raw'),
        dict(pool='gem'),
        dict(cls_readout='concat', out_stride=10),
        dict(window_size=2, window_block_indexes=[0], use_rel_pos=True),
    ],
    ids=['raw', 'gem', 'out_stride', 'windows'],
)
def test_what_forms_the_output_is_in_the_file(tmp_path, options):
    vit = loaded(**options, img_size=SIZE)
    path = export(Graph(vit), tmp_path / 'vit.onnx', size=SIZE).path
    assert difference(path, vit.backbone, images(*SIZE)) < 1e-4


def test_no_positions_are_resampled_for_one_size(vit, tmp_path):
    path = export(Graph(vit), tmp_path / 'vit.onnx', size=SIZE).path
    kinds = {node.op_type for node in onnx.load(path).graph.node}
    assert not kinds & {'Resize', 'Range'}
    assert 'MatMul' in kinds


@pytest.mark.parametrize('is_bgr', [False, True])
def test_normalisation_takes_rgb_on_255(is_bgr, vit, tmp_path):
    vit = vit._replace(mean=(90.0, 120.0, 150.0), is_bgr=is_bgr)
    path = export(Graph(vit, normalises=True), tmp_path / 'vit.pt', size=SIZE).path
    pixels = torch.randint(0, 256, (1, *SIZE, 3), dtype=torch.uint8)
    expected = vit.backbone(vit.normalised(pixels.numpy()))
    (first, _) = torch.jit.load(path)(pixels.permute(0, 3, 1, 2).float())
    assert (first - expected[0]).abs().max() < 1e-4 * expected[0].abs().max()


def test_the_neck_stands_behind_the_backbone(tmp_path):
    vit, neck = loaded(), redraw(SimpleFeaturePyramid(64, 16, num_outs=5)).eval()
    exported = export(Graph(vit, neck), tmp_path / 'vit.onnx', size=(96, 64))
    assert exported.outputs['level_4'] == (1, 16, 2, 1)
    model = lambda x: neck(vit.backbone(x))  # noqa: E731
    assert difference(exported.path, model, images(96, 64)) < 1e-4


def test_lora_is_merged_in_the_file_alone(tmp_path):
    vit = loaded(lora=dict(r=2))
    graph = Graph(vit)
    assert not [name for name in graph.state_dict() if 'lora' in name]
    assert [name for name in vit.backbone.state_dict() if 'lora' in name]
    path = export(graph, tmp_path / 'vit.pt', size=SIZE).path
    assert difference(path, vit.backbone, images(*SIZE)) < 1e-4


def test_the_given_backbone_keeps_its_positions(vit, tmp_path):
    export(Graph(vit), tmp_path / 'vit.pt', size=SIZE)
    assert vit.backbone.vit.pos_embed.shape[1] == 101


def test_the_file_says_what_it_holds(vit, tmp_path):
    path = export(Graph(vit), tmp_path / 'vit.onnx', size=SIZE).path
    noted = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert noted['model'] == NAME
    assert json.loads(noted['mean']) == list(MEAN)
    assert json.loads(noted['layers']) == [1, 0]
    assert json.loads(noted['strides']) == [16, 16]


def test_other_numbers_are_not_written(vit, tmp_path, monkeypatch):
    monkeypatch.setattr(writing, 'TOLERANCE', 0.0)
    with pytest.raises(ValueError, match=r"'test_vit' as \.onnx gives other .* by up to \d\.\de-0"):
        export(Graph(vit), tmp_path / 'vit.onnx', size=SIZE)
    assert not list(tmp_path.iterdir())


def distorted(monkeypatch, change):
    """Let TorchScript files give changed outputs when `export` runs them."""
    kind = formats.FORMATS['.pt']

    def read(file):
        run = kind.read(file)
        return lambda images: [change(each) for each in run(images)]

    monkeypatch.setitem(formats.FORMATS, '.pt', kind._replace(read=read))


@torch.no_grad()
def test_the_difference_is_what_a_user_computes(vit, tmp_path, monkeypatch):
    """max |a - b|, and beside it the share of the largest value; 0.001 of outputs near 1000."""
    large = vit._replace(backbone=copy.deepcopy(vit.backbone))
    large.backbone.norm = 'all'
    large.backbone.vit.norm.weight.mul_(1000)
    x = Graph(large).images(1, SIZE)
    expected = large.backbone(x)
    distorted(monkeypatch, lambda each: each + 0.001)
    exported = export(Graph(large), tmp_path / 'vit.pt', size=SIZE)
    outputs = [each + 0.001 for each in torch.jit.load(exported.path)(x)]
    pairs = list(zip(outputs, expected, strict=True))
    assert exported.difference == max((a - b).abs().max().item() for a, b in pairs)
    shares = [((a - b).abs().max() / b.abs().max()).item() for a, b in pairs]
    assert exported.relative == pytest.approx(max(shares))
    assert str(exported).splitlines()[-1] == (
        f'largest difference from PyTorch {exported.difference:.1e}; {max(shares):.1e} of the '
        f'largest value of its output, 1e-04 allowed'
    )


@pytest.mark.parametrize(
    ('scale', 'change', 'line'),
    [
        (1e-3, lambda each: each * 1.01, r'by up to \d\.\de-0[45], which is 1\.0e-02 of'),
        (1.0, lambda each: each * 1.001, r'which is 1\.0e-03 of the largest value'),
        (0.0, lambda each: each + 1e-9, r'by up to 1\.0e-09, which is 1\.0e\+00 of'),
        (1.0, lambda each: each * torch.nan, 'by up to inf, which is inf of'),
        (1.0, lambda each: each[:, :1], 'by up to inf, which is inf of'),
    ],
    ids=['small', 'usual', 'zero', 'nan', 'shape'],
)
@torch.no_grad()
def test_a_share_is_allowed_however_small_the_outputs(
    scale, change, line, vit, tmp_path, monkeypatch
):
    small = vit._replace(backbone=copy.deepcopy(vit.backbone))
    small.backbone.norm = 'all'
    for each in (small.backbone.vit.norm.weight, small.backbone.vit.norm.bias):
        each.mul_(scale)
    distorted(monkeypatch, change)
    with pytest.raises(ValueError, match=line):
        export(Graph(small), tmp_path / 'vit.pt', size=SIZE)
    assert not list(tmp_path.iterdir())


def test_what_an_exporter_raises_is_one_line(vit, tmp_path, monkeypatch):
    def fail(job):
        raise RuntimeError('Unsupported: aten::x\nand\na graph of it')

    monkeypatch.setitem(formats.FORMATS, '.pt', formats.FORMATS['.pt']._replace(write=fail))
    with pytest.raises(ValueError, match=r'exported \(Unsupported: aten::x\): try .onnx or .pt2$'):
        export(Graph(vit), tmp_path / 'vit.pt', size=SIZE)


def test_a_full_disk_leaves_nothing(vit, tmp_path, monkeypatch):
    def fill(path, content):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr('pathlib.Path.write_bytes', fill)
    with pytest.raises(OSError, match='No space left'):
        export(Graph(vit), tmp_path / 'vit.pt', size=SIZE)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ('name', 'options', 'message'),
    [
        ('vit.pth', {}, r'ends in \.onnx, \.pt, \.pt2'),
        ('vit.onnx', dict(opset=9), r'opset must be in \[17, 20\], got 9'),
        ('vit.onnx', dict(size=(15, 64)), 'size 15x64 is less than one patch .* 16x16'),
        ('vit.onnx', dict(size=(0, 64)), 'size must be at least 1, got 0'),
    ],
)
def test_bad_requests_are_refused(vit, tmp_path, name, options, message):
    with pytest.raises(ValueError, match=message):
        export(Graph(vit), tmp_path / name, **options)


def test_models_of_one_size_have_no_file_for_any(tmp_path):
    vit = loaded('beit_base_patch16_224', width=48, img_size=(64, 96))
    with pytest.raises(
        ValueError, match=r'size=\(H, W\), here for instance 64 96, and dynamic=True'
    ):
        export(Graph(vit), tmp_path / 'vit.onnx', dynamic=True)


@pytest.mark.parametrize('name', ['onnx', 'onnxruntime'])
def test_a_missing_package_is_named(vit, tmp_path, monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=rf'needs {name}: pip install vit_backbones\[tools\]'):
        export(Graph(vit), tmp_path / 'vit.onnx', size=SIZE)


@pytest.mark.slow
@pytest.mark.parametrize('suffix', RUNS)
@pytest.mark.parametrize(
    'name',
    [
        'deit_tiny_distilled_patch16_224',
        'vit_small_patch14_reg4_dinov2',
        'vit_small_patch16_dinov3',
        'eva02_tiny_patch14_224',
        'vit_base_patch16_siglip_224',
        'samvit_base_patch16_224',
        'beit_base_patch16_224',
    ],
)
def test_families(tmp_path, name, suffix):
    vit = loaded(name, img_size=SIZE)
    path = export(Graph(vit), tmp_path / f'vit{suffix}', size=SIZE).path
    assert difference(path, vit.backbone, images(*SIZE)) < 1e-4
