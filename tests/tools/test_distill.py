"""`tools/distill.py` on models so small that a distillation takes a second."""

import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import REPOSITORY, load_tool
from distilled_models import SIZES, STUDENT, TEACHER, write_images, write_models
from safetensors import safe_open
from safetensors.torch import load_file

from vit_backbones import ViTFeatBackbone
from vit_backbones.distillation.distiller import Distiller
from vit_backbones.distillation.teacher import Teacher
from vit_backbones.models.chosen import Choice, load_backbone
from vit_backbones.training.curves_hook import CurvesHook

COMMON = ['--size', '32', '48', '--batch-size', '2', '--num-workers', '0', '--lr', '0.002']


@pytest.fixture
def distill(tmp_path, monkeypatch):
    """The tool's main, from a folder with models and images."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(CurvesHook, '_draw', lambda *args: None)  # takes most of the time
    write_models()
    write_images('images')
    main = load_tool('distill').main

    def run(*options, teacher=TEACHER, student=STUDENT, images='images'):
        return main([teacher, student, images, *COMMON, *map(str, options)])

    return run


def losses(folder):
    """Those of each iteration, out of the last checkpoint; a kill may leave the one before."""
    path = max(Path(folder).glob('iter_*.pth'), key=lambda each: int(each.stem[5:]))
    history = torch.load(path, weights_only=False)['message_hub']['log_scalars']
    return history['train/loss'].data[0].tolist()


def weights(folder):
    return load_file(f'{folder}/student.safetensors')


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def test_the_student_is_a_checkpoint_with_the_features_of_the_training(distill, capsys):
    assert distill('--out', 'out', '--iters', 6) == 0
    out = capsys.readouterr()
    done, wrote = out.out.splitlines()[-2:]
    assert re.fullmatch(r'done: loss [\d.]+ at the start, [\d.]+ at the end · \d+ s · out', done)
    assert wrote == 'wrote out/student.safetensors'
    vit = ViTFeatBackbone('test_vit', checkpoint='out/student.safetensors').eval()
    assert (
        vit.load_report
        == ViTFeatBackbone(*STUDENT.split('=')[:1], checkpoint='student.pth').load_report
    )
    saved = torch.load('out/iter_6.pth', weights_only=False)['state_dict']
    trained = ViTFeatBackbone('test_vit').eval()
    own = {k.removeprefix('backbone.'): v for k, v in saved.items() if k.startswith('backbone.')}
    trained.load_state_dict(own)
    images = torch.randn(1, 3, 40, 56)
    unfinished = load_backbone(Choice(model='test_vit', checkpoint='out/iter_6.pth')).backbone
    with torch.no_grad():
        assert torch.equal(vit(images)[0], trained(images)[0])
        assert torch.equal(vit(images)[0], unfinished(images)[0])
        before = ViTFeatBackbone('test_vit', checkpoint='student.pth').eval()
        assert not torch.allclose(vit(images)[0], before(images)[0], atol=1e-3)
    with safe_open('out/student.safetensors', 'pt') as file:
        noted = file.metadata()
    assert (noted['model'], noted['distilled_from']) == ('test_vit.r160_in1k', 'teacher')
    assert json.loads(noted['mean']) == [127.5] * 3


def test_the_loss_falls(distill):
    assert distill('--out', 'out', '--iters', 40, '--lr', 0.003) == 0
    found = losses('out')
    assert len(found) == 40
    assert sum(found[-5:]) < 0.5 * sum(found[:5])


def test_a_student_without_weights_starts_as_its_seed_says(distill):
    for out, seed in (('one', 3), ('same', 3), ('other', 4)):
        options = '--out', out, '--iters', 2, '--scratch', '--seed', seed
        assert distill(*options, student='test_vit') == 0
    assert equal(weights('one'), weights('same'))
    assert not equal(weights('one'), weights('other'))


def test_what_was_killed_goes_on_as_if_nothing_had_happened(distill, monkeypatch, capsys):
    options = '--iters', 8, '--save-every', 3
    assert distill('--out', 'whole', *options) == 0
    forward, runs = Distiller.forward, []

    def dying(self, *args, **kwargs):
        runs.append(1)
        if len(runs) == 6:
            raise OSError('the power is gone')
        return forward(self, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(Distiller, 'forward', dying)
        with pytest.raises(OSError, match='power'):
            distill('--out', 'parts', *options)
    assert not Path('parts/student.safetensors').exists()
    monkeypatch.delattr(Distiller, 'start')  # all that it measured is in the checkpoint
    assert distill('--out', 'parts', *options, '--resume') == 0
    assert 'resuming from parts/iter_3.pth' in capsys.readouterr().out
    assert losses('parts') == pytest.approx(losses('whole'), rel=1e-6)
    assert equal(weights('parts'), weights('whole'))


def test_features_from_a_disk_give_the_same_losses_without_the_teacher(distill, monkeypatch):
    computed, runs = Teacher._computed, []
    monkeypatch.setattr(Teacher, '_computed', lambda *args: runs.append(1) or computed(*args))
    options = '--iters', 9, '--views', 1
    counts = []
    for out, cache in (
        ('plain', ()),
        ('first', ('--cache', 'kept')),
        ('again', ('--cache', 'kept')),
    ):
        runs.clear()
        assert distill('--out', out, *options, *cache) == 0
        counts.append(len(runs))
    assert losses('plain') == losses('first') == losses('again')
    sample = 2 * len(SIZES)  # batches
    assert counts[0] == 9 + sample
    assert counts[1] < sample
    assert counts[2] == 0
    assert len(list(Path('kept').glob('*/*.safetensors'))) == len(SIZES)
    assert distill('--out', 'more', '--iters', 1, '--views', 2, '--cache', 'kept') == 0
    assert len(list(Path('kept').iterdir())) == 2


def test_files_that_are_no_images_are_skipped_and_counted(distill, capsys):
    write_images('mixed', broken=('a.png', 'b.jpg'))
    assert distill('--out', 'out', '--iters', 12, images='mixed') == 0
    said = capsys.readouterr()
    text = said.out + said.err
    assert 'skipped unreadable training image mixed/a.png (UnreadableImageError: ' in text
    assert 'skipped 2 unreadable training images: a.png (' in text


@pytest.mark.parametrize(
    ('models', 'options', 'line'),
    [
        (
            dict(teacher=STUDENT, student=TEACHER),
            (),
            'the teacher test_vit.r160_in1k has 0.306 M parameters, fewer than the student teacher '
            'with 0.381 M: a student learns from a model of its size or a larger one; do they '
            'stand in the wrong order?',
        ),
        (
            dict(teacher=STUDENT),
            (),
            'teacher and student are one model with the same weights, test_vit.r160_in1k: '
            'there is nothing to learn; name another student',
        ),
        (dict(images='none'), (), 'none: no such image, folder, list or pattern'),
        (dict(images='empty'), (), None),
        (
            dict(images='broken'),
            (),
            'none of 1 images can be read: broken/a.png: no image, or a damaged one',
        ),
        (
            {},
            ('--size', 40),
            '--size 40 40 is not of whole patches of test_vit.r160_in1k, which are 16x16 pixels: '
            'the next size is --size 48 48',
        ),
        (
            {},
            ('--teacher-size', 42, 50),
            '--teacher-size 42 50 is not of whole patches of teacher, which are 14x14 pixels: the '
            'next size is --teacher-size 42 56',
        ),
        ({}, ('--size', 16, 16, 16), '--size takes a side, or height and width, got 3 numbers'),
        (
            dict(student='test_vit'),
            (),
            'the student test_vit has no weights: write test_vit=FILE, or give --pretrained, or '
            '--scratch',
        ),
        (
            dict(teacher='test_vit4'),
            (),
            'the teacher test_vit4 has no weights: write test_vit4=FILE, or give --pretrained',
        ),
        (
            {},
            ('--scratch',),
            '--scratch is a start without weights, and test_vit.r160_in1k=student.pth names some',
        ),
        ({}, ('--lr', 0), '--lr must be a number above 0, got 0.0'),
        ({}, ('--out', 'teacher.pth'), 'teacher.pth cannot be written: it is no folder'),
        ({}, ('--device', 'cuda:9'), None),
        (
            dict(teacher='test_vit4=student.pth'),
            (),
            None,
        ),
    ],
)
def test_what_is_wrong_is_said_in_one_line_and_leaves_nothing(
    models, options, line, distill, capsys, no_gpu
):
    Path('empty').mkdir()
    Path('broken').mkdir()
    Path('broken/a.png').write_bytes(b'no image')
    before = sorted(Path().rglob('*'))
    assert distill('--out', 'out', '--iters', 2, *options, **models) == 2
    said = capsys.readouterr().err
    assert said.count('\n') == 1
    assert said.startswith('error: ')
    if line is not None:
        assert said == f'error: {line}\n'
    assert sorted(Path().rglob('*')) == before


def test_a_resume_is_of_the_same_distillation(distill, capsys):
    assert distill('--out', 'out', '--iters', 2) == 0
    held = weights('out')

    def refused(*options, **models):
        capsys.readouterr()
        assert distill('--out', 'out', *options, **models) == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line.removeprefix('error: ')

    assert refused('--iters', 2) == (
        'out holds a distillation (iter_2.pth): go on with --resume, or name another --out'
    )
    weights_of = torch.load('teacher.pth')
    torch.save({k: 2 * v for k, v in weights_of.items()}, 'teacher.pth')
    assert refused('--iters', 2, '--resume').startswith(
        'out/iter_2.pth was written with teacher teacher ('
    )
    torch.save(weights_of, 'teacher.pth')
    assert refused('--iters', 3, '--resume') == (
        'out/iter_2.pth was written with iters 2, and now it is 3: go on as it began, or name '
        'another --out'
    )
    assert 'no checkpoint of a distillation' in refused('--iters', 2, '--resume', 'student.pth')
    assert distill('--out', 'out', '--iters', 2, '--resume') == 0
    assert equal(weights('out'), held)


@pytest.mark.slow
def test_kill_9_at_any_moment_loses_nothing(distill):
    options = ['--iters', '60', '--save-every', '7', '--num-workers', '1']
    command = [sys.executable, REPOSITORY / 'tools/distill.py', TEACHER, STUDENT, 'images', *COMMON]
    assert distill('--out', 'whole', *options) == 0
    shutil.rmtree('parts', ignore_errors=True)
    kills = 0
    for wanted in (8, 20, 30, 50):
        run = [*command, '--out', 'parts', *options, '--resume']
        process = subprocess.Popen(run, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None:
            done = [int(path.stem[5:]) for path in Path('parts').glob('iter_*.pth')]
            if max(done, default=0) >= wanted:
                process.kill()
                kills += 1
                break
            time.sleep(0.001)
        process.wait()
    assert subprocess.run([*command, '--out', 'parts', *options, '--resume']).returncode == 0
    assert kills >= 2
    assert losses('parts') == pytest.approx(losses('whole'), rel=1e-6)
    assert equal(weights('parts'), weights('whole'))
