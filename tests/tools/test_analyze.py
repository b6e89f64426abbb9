"""tools/analyze.py on a segmenter and a detector so small that a pass takes a second."""

import csv
import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from checked_configs import DETECTOR, SEGMENTER
from conftest import load_tool
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

VALIDATION = """
val_dataloader = dict(
    batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(train_dataloader['dataset'], test_mode=True, {root}),
)
val_cfg = dict()
"""
SEGMENTER_END = (
    VALIDATION.format(root='data_root={root!r}') + "val_evaluator = dict(type='IoUMetric')"
)
DETECTOR_END = (
    "pipeline.insert(1, dict(type='Resize', scale=(96, 64)))\n"
    "model['test_cfg'] = dict(rpn=dict(max_per_img=20), rcnn=dict(max_per_img=4))"
    + VALIDATION.format(root='data_root={root!r}')
    + "val_evaluator = dict(type='CocoMetric', metric=['segm'], ann_file={root!r} + '/boxes.json')"
)
SCORES = (0.9, 0.1, 0.5)  # share of pixels that have the label the model is made to predict


def write_run(folder, name, text, root):
    """A work dir with config, random weights and a log."""
    run = folder / name
    (run / '20260101_000000/vis_data').mkdir(parents=True)
    (run / f'{name}.py').write_text(text + root)
    config = Config.fromfile(run / f'{name}.py')
    init_default_scope(config.default_scope)
    torch.manual_seed(0)
    model = MODELS.build(config.model)
    if hasattr(model, 'decode_head'):  # predicts the second class alone
        torch.nn.init.zeros_(model.decode_head.conv_seg.weight)
        model.decode_head.conv_seg.bias.data = torch.tensor([0.0, 9.0])
    torch.save(dict(state_dict=model.state_dict()), run / 'epoch_1.pth')
    lines = [dict(loss=1.0, iter=1, step=1, epoch=1), dict(mIoU=30.0, step=1)]
    log = run / '20260101_000000/vis_data/scalars.json'
    log.write_text('\n'.join(map(json.dumps, lines)))
    return str(run)


def write_data(root):
    """Three images with labels and a box each."""
    images = root / 'images'
    images.mkdir(parents=True)
    (root / 'labels').mkdir()
    annotations, listed = [], []
    for i, share in enumerate(SCORES):
        labels = np.zeros((64, 96), np.uint8)
        labels[:, : round(96 * share)] = 1
        cv2.imwrite(str(images / f'{i}.png'), np.repeat(labels[..., None], 3, axis=2) * 200)
        cv2.imwrite(str(root / 'labels' / f'{i}.png'), labels)
        listed.append(dict(id=i, file_name=f'{i}.png', height=64, width=96))
        x, y, width, height = 10, 8, 40, 30
        corners = [x, y, x + width, y, x + width, y + height, x, y + height]
        box = dict(bbox=[x, y, width, height], area=width * height, segmentation=[corners])
        annotations.append(dict(id=i + 1, image_id=i, category_id=i + 1, iscrowd=0, **box))
    names = [dict(id=i, name=name) for i, name in enumerate(('cat', 'dog', 'cow'), 1)]
    content = dict(images=listed, annotations=annotations, categories=names)
    (root / 'boxes.json').write_text(json.dumps(content))


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    """Two segmenters and their data."""
    folder = tmp_path_factory.mktemp('analyzed')
    write_data(folder / 'data')
    end = SEGMENTER_END.format(root=str(folder / 'data'))
    for name in ('a', 'b'):
        write_run(folder, name, SEGMENTER, end)
    return folder


@pytest.fixture
def analyze(tmp_path, monkeypatch, capsys):
    """The tool's main, from an empty folder: exit code, lines printed, and the error."""
    monkeypatch.chdir(tmp_path)
    main = load_tool('analyze').main

    def run(*arguments):
        code = main([str(each) for each in arguments])
        told = capsys.readouterr()
        return code, told.out, told.err

    return run


def test_two_runs__values_pictures_and_the_worst_first(analyze, place):
    code, printed, error = analyze(place / 'a', place / 'b', '--device', 'cpu', '--num-worst', '2')
    assert code == 0, error
    rows = list(csv.reader(Path('analysis/per_class.csv').read_text().splitlines()))
    assert rows[0] == ['class', 'IoU a', 'IoU b', 'IoU b - a', 'Acc a', 'Acc b', 'Acc b - a']
    assert rows[1][:4] == ['road', '0.00', '0.00', '+0.00']
    counted = np.mean([round(96 * share) / 96 for share in SCORES])
    assert rows[2][1] == f'{100 * counted:.2f}'
    assert '1. a\n2. b\n\n| class | IoU 1 | IoU 2 |' in printed
    names = sorted(path.name for path in Path('analysis/b/worst').glob('*'))
    assert names == ['01_0.052_1.png', '02_0.250_2.png']  # half of the IoU of the second class
    for name in ('curves.png', 'a/confusion.png', 'a/worst.png', 'b/confusion.png'):
        assert cv2.imread(f'analysis/{name}') is not None


def test_curves_alone_need_neither_data_nor_weights(analyze, place, tmp_path):
    run = tmp_path / 'bare/20260101_000000/vis_data'
    run.mkdir(parents=True)
    log = (place / 'a/20260101_000000/vis_data/scalars.json').read_text()
    (run / 'scalars.json').write_text(log)
    assert analyze('bare', '--curves-only')[:2] == (0, 'wrote bare/analysis/curves.png\n')


def test_detector__masks_are_matched_and_classes_have_their_ap(analyze, place, tmp_path):
    end = DETECTOR_END.format(root=str(place / 'data'))
    run = write_run(tmp_path, 'det', DETECTOR, end)
    code, printed, error = analyze(run, '--device', 'cpu', '--num-worst', '1')
    assert code == 0, error
    assert re.search(r'\| dog   \| \d\.\d{3} \|', printed)
    assert len(list(Path('det/analysis/worst').glob('*.png'))) == 1
    assert Path('det/analysis/confusion.png').is_file()


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['none'], "work dir 'none' does not exist"),
        (['.'], 'is no work dir of tools/train.py: it holds no config'),
        (['{place}/a', '{place}/a'], 'given twice'),
        (['{place}/a', '{place}/b', '--checkpoint', 'a.pth'], 'goes with one WORK_DIR, got 2'),
        (
            ['{place}/a', '--checkpoint', 'other.pth'],
            'lacks 62 of 64 tensors .* was it trained with another',
        ),
        (['{place}/a', '--checkpoint', 'headless.pth'], 'lacks 2 of 64 tensors .* decode_head'),
        (['{place}/a', '--split', 'test'], 'has no test_dataloader: choose another --split'),
        (['{place}/a', '--device', 'cuda'], '--device cuda: PyTorch finds no GPU here'),
        (
            [
                '{place}/a',
                '--cfg-options',
                'val_dataloader.dataset.pipeline.1.type=PhotoMetricDistortion',
            ],
            'images/0.png has nothing, but .*LoadAnnotations',
        ),
        (
            ['{place}/a', '--cfg-options', 'val_dataloader.dataset.data_root=/none'],
            "data_root: '/none' does not exist",
        ),
    ],
)
def test_bad_input_is_one_line(arguments, message, analyze, place, no_gpu):
    torch.save({'other.weight': torch.zeros(1)}, 'other.pth')
    weights = torch.load(place / 'a/epoch_1.pth')['state_dict']
    torch.save({k: v for k, v in weights.items() if 'conv_seg' not in k}, 'headless.pth')
    out = [] if '.' in arguments else ['--out', 'out']
    code, _, error = analyze(*(each.format(place=place) for each in arguments), *out)
    assert code == 2
    lines = [line for line in error.splitlines() if not line.startswith('predicting')]
    assert len(lines) == 1
    assert re.fullmatch(f'error: .*{message}.*', lines[0])


def test_no_log_no_curves_is_one_line(analyze, place, tmp_path):
    Path('bare').mkdir()
    Path('bare/a.py').touch()
    code, _, error = analyze('bare', '--curves-only')
    assert (code, error[:31]) == (2, 'error: bare: no training was lo')


def test_unwritable_output_is_one_line(analyze, place):
    Path('file').touch()
    code, _, error = analyze(place / 'a', '--curves-only', '--out', 'file')
    assert code == 2
    assert error == 'error: file cannot be written: it is no folder\n'


def test_what_curves_alone_do_not_use_is_refused(capsys):
    with pytest.raises(SystemExit, match='2'):
        load_tool('analyze').main(['a', '--curves-only', '--checkpoint', 'a.pth'])
    assert '--checkpoint is for predictions' in capsys.readouterr().err


def test_a_mistake_makes_no_folder(analyze, place):
    assert analyze(place / 'a', place / 'b', '--checkpoint', 'a.pth')[0] == 2
    assert not Path('analysis').exists()
