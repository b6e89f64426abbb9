"""Reading weight files: every kind that is known, and one clear line for all others."""

import os
import pickle
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from safetensors.torch import save_file

from vit_backbones.checkpoints import names, read_checkpoint, reading, sections

TENSORS = {'a.weight': torch.arange(6.0).reshape(2, 3), 'b': torch.ones(300)}


class Evil:
    """Runs a command where a pickle is loaded without care."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f'touch {self.path}',)


def bytes_read():
    """By this process so far, where Linux counts them."""
    try:
        counts = Path('/proc/self/io').read_text()
    except OSError:
        pytest.skip('nothing counts the bytes that are read')
    return int(counts.split('rchar: ')[1].split()[0])


def check_same(read):
    assert read.keys() == TENSORS.keys()
    assert all(torch.equal(read[name], tensor) for name, tensor in TENSORS.items())


@pytest.mark.parametrize('suffix', ['.pth', '.pth.tar', '.pt', '.bin', '.ckpt'])
@pytest.mark.parametrize('zipped', [True, False])
def test_reads_torch_files(suffix, zipped, tmp_path):
    path = tmp_path / f'a{suffix}'
    torch.save(TENSORS, path, _use_new_zipfile_serialization=zipped)
    check_same(read_checkpoint(str(path)))


def test_reads_safetensors(tmp_path):
    save_file(TENSORS, tmp_path / 'a.safetensors')
    check_same(read_checkpoint(tmp_path / 'a.safetensors'))


def test_reads_numpy_archives(tmp_path):
    np.savez(tmp_path / 'a.npz', **{name: tensor.numpy() for name, tensor in TENSORS.items()})
    check_same(read_checkpoint(tmp_path / 'a.npz'))


def test_two_bytes_without_a_type_are_bfloat16(tmp_path):
    halves = {name: tensor.bfloat16() for name, tensor in TENSORS.items()}
    arrays = {name: half.view(torch.int16).numpy().view('V2') for name, half in halves.items()}
    np.savez(tmp_path / 'a.npz', **arrays)
    read = read_checkpoint(tmp_path / 'a.npz')
    assert all(torch.equal(read[name], half) for name, half in halves.items())


@pytest.mark.parametrize(
    'wrapper', ['state_dict', 'model', 'teacher', 'student', 'model_state', 'target_encoder']
)
def test_opens_wrappers_and_leaves_out_what_is_no_tensor(wrapper, tmp_path):
    torch.save({wrapper: {**TENSORS, 'epoch': 3}, 'optimizer': {}}, tmp_path / 'a.pth')
    check_same(read_checkpoint(tmp_path / 'a.pth'))


def test_an_averaged_copy_is_read_before_the_student(tmp_path):
    student = {'student': {'a.weight': torch.ones(1)}, 'teacher': TENSORS}
    torch.save(student, tmp_path / 'a.pth')
    check_same(read_checkpoint(tmp_path / 'a.pth'))


def test_sections_with_numbers_for_names_are_no_weights(tmp_path):
    content = {
        0: TENSORS,
        'optimizer': {'state': {0: {'exp_avg': torch.ones(1)}}},
        'model': TENSORS,
    }
    torch.save(content, tmp_path / 'a.pth')
    check_same(read_checkpoint(tmp_path / 'a.pth'))


def test_reads_what_mmengines_runner_saves(tmp_path):
    history = HistoryBuffer([1.0, 2.0], [1, 1])
    content = dict(
        meta=dict(epoch=1, iter=2),
        state_dict=TENSORS,
        message_hub=dict(log_scalars={'train/loss': history}, runtime_info={}),
    )
    torch.save(content, tmp_path / 'epoch_1.pth')
    check_same(read_checkpoint(tmp_path / 'epoch_1.pth'))


def test_reads_what_trainings_save_beside_their_arguments(tmp_path):
    """As timm, DINO, iBOT, DeiT and MAE do."""
    torch.save({'args': Namespace(lr=0.1, arch='vit'), 'state_dict': TENSORS}, tmp_path / 'a.pth')
    check_same(read_checkpoint(tmp_path / 'a.pth'))
    assert names(tmp_path / 'a.pth').keys() == TENSORS.keys()


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors', '.npz'])
def test_names_come_with_shapes(suffix, tmp_path):
    path = tmp_path / f'a{suffix}'
    if suffix == '.npz':
        np.savez(path, **TENSORS)
    else:
        (torch.save if suffix == '.pth' else save_file)(TENSORS, path)
    assert names(path) == {name: tensor.shape for name, tensor in TENSORS.items()}


def test_names_are_read_without_the_values_of_torch(tmp_path):
    torch.save({'a': torch.zeros(2**26, dtype=torch.uint8)}, tmp_path / 'a.pth')
    read_checkpoint(tmp_path / 'a.pth')  # imports what it needs
    before = bytes_read()
    names(tmp_path / 'a.pth')
    assert bytes_read() - before < 2**20


def test_names_are_read_without_the_values_of_safetensors(monkeypatch, tmp_path):
    save_file(TENSORS, tmp_path / 'a.safetensors')
    monkeypatch.delattr(reading, 'load_file')
    assert names(tmp_path / 'a.safetensors').keys() == TENSORS.keys()


def test_sections_are_the_top_level_keys(tmp_path):
    torch.save({'state_dict': TENSORS, 'optimizer': {}, 'meta': {}}, tmp_path / 'a.pth')
    assert sections(tmp_path / 'a.pth') == {'state_dict', 'optimizer', 'meta'}
    torch.save([TENSORS], tmp_path / 'a.pth')
    assert sections(tmp_path / 'a.pth') == set()


def saved(name):
    def make(path):
        if name == 'a.safetensors':
            save_file(TENSORS, path)
        elif name == 'a.npz':
            np.savez(path, **TENSORS)
        else:
            torch.save(TENSORS, path)
        path.write_bytes(path.read_bytes()[:-700])

    return make


@pytest.mark.parametrize(
    ('name', 'make', 'message'),
    [
        ('a.pth', lambda path: path.mkdir(), 'is a folder: name a file in it'),
        (
            'a.npy',
            lambda path: path.touch(),
            'is no .pth, .pt, .tar, .bin, .ckpt, .safetensors, .npz file',
        ),
        ('a.pth', lambda path: path.touch(), r'is it complete\? \(0 bytes\)'),
        ('a.safetensors', lambda path: path.touch(), r'is it complete\? \(0 bytes\)'),
        ('a.pth', lambda path: path.write_text('<html>not found'), 'it is text, no weights'),
        (
            'a.safetensors',
            lambda path: path.write_text('<html>not found'),
            'it is text, no weights',
        ),
        (
            'a.pth',
            lambda path: save_file(TENSORS, path),
            'it is a safetensors file',
        ),
        (
            'a.pth',
            lambda path: path.write_text('version https://git-lfs.github.com/spec/v1\noid 1\n'),
            'it is a pointer of Git LFS',
        ),
        ('a.pth', saved('a.pth'), 'is it complete'),
        ('a.safetensors', saved('a.safetensors'), 'is it complete'),
        ('a.npz', lambda path: path.touch(), r'is it complete\? \(0 bytes\)'),
        ('a.npz', lambda path: path.write_text('<html>not found'), 'it is text, no weights'),
        ('a.npz', lambda path: path.write_bytes(b'\x80\x02.'), 'it is no NumPy archive'),
        ('a.npz', saved('a.npz'), 'is it complete'),
        ('a.pth', lambda path: path.write_bytes(b'\x80\x02.'), 'is it complete'),
        ('a.pth', lambda path: torch.save({'epoch': 1}, path), 'holds no tensors'),
        ('a.pth', lambda path: torch.save(torch.ones(2), path), 'holds no tensors'),
        (
            'a.pth',
            lambda path: torch.save({'network': TENSORS, 'epoch': 1}, path),
            "holds no tensors but in 'network': save that section as a file of its own$",
        ),
    ],
)
@pytest.mark.parametrize('read', [read_checkpoint, names])
def test_other_files_get_one_line_with_their_name(name, make, message, read, tmp_path):
    path = tmp_path / name
    make(path)
    with pytest.raises(ValueError, match=message) as caught:
        read(path)
    assert str(caught.value).startswith(f"checkpoint '{path}'")
    assert '\n' not in str(caught.value)


def test_what_is_no_local_path_is_refused():
    with pytest.raises(TypeError, match='checkpoint must be the path of a file, got 3'):
        read_checkpoint(3)
    with pytest.raises(ValueError, match=r"'https://a\.b/c\.pth' is no local file"):
        read_checkpoint('https://a.b/c.pth')


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"checkpoint '.*/a.pth' does not exist"):
        read_checkpoint(tmp_path / 'a.pth')


@pytest.mark.parametrize('dump', [torch.save, lambda o, path: path.write_bytes(pickle.dumps(o, 2))])
def test_code_in_a_file_is_not_run(dump, tmp_path):
    trace = tmp_path / 'trace'
    dump({'state_dict': {'evil': Evil(trace)}}, tmp_path / 'a.pth')
    for read in (read_checkpoint, names, sections):
        with pytest.raises(ValueError, match=r'it wants to run posix\.system, which is refused'):
            read(tmp_path / 'a.pth')
    assert not trace.exists()


def test_code_in_a_numpy_archive_is_not_run(tmp_path):
    trace = tmp_path / 'trace'
    np.savez(tmp_path / 'a.npz', evil=np.array([Evil(trace)]))
    with pytest.raises(ValueError, match='it holds pickled objects, which are refused'):
        read_checkpoint(tmp_path / 'a.npz')
    assert not trace.exists()
