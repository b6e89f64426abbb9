"""Weight files that nobody should trust: each gets one line, none runs, none fills the memory."""

import resource

import numpy as np
import pytest
import torch
from hostile_files import (
    CODE,
    bare_pickle,
    code,
    entry,
    legacy_tar,
    npz_bomb,
    npz_of_objects,
    npz_that_lies,
    safetensors,
    torch_bomb,
    torch_that_lies,
    torch_view_bomb,
)

from vit_backbones.checkpoints import contents, names, read_checkpoint

REFUSED = 'it wants to run {}, which is refused; save only its tensors'
BOMB = (
    'it expands from SIZE bytes to {}, more than 100 times as many, as files do that are meant to '
    'fill the memory; if you trust it, save it uncompressed'
)
HEADER = 'Error while deserializing header: {}; is it complete? (SIZE bytes)'
JSON = HEADER.format('invalid JSON in header: {}')
NO_TENSORS = 'it is no safetensors file but a pickle: name it .pth'
TWICE = '{"a": %s, "a": %s}'


def spelled(**options):
    return str(entry(**options)).replace("'", '"')


# A name with its suffix, what writes it, and the end of its line, in which SIZE is the file's
FILES = {
    **{f'{kind}.pth': (code(kind), REFUSED.format(CODE[kind][1])) for kind in CODE},
    'in the optimizer.pth': (code('eval', 'optimizer'), REFUSED.format('eval')),
    'in the meta.ckpt': (code('system', 'meta'), REFUSED.format('posix.system')),
    'in the average.bin': (code('exec', 'ema_state_dict'), REFUSED.format('exec')),
    'in the log.pth': (code('system', 'message_hub'), REFUSED.format('posix.system')),
    'before zip.pth': (code('system', zipped=False), REFUSED.format('posix.system')),
    'bare.pt': (bare_pickle, REFUSED.format('posix.system')),
    'first.pth.tar': (
        legacy_tar,
        'it is of the first PyTorch (a tar), which runs code: convert it where you trust it',
    ),
    'first.safetensors': (
        legacy_tar,
        'it is of the first PyTorch (a tar), which runs code: convert it where you trust it',
    ),
    'bare.safetensors': (bare_pickle, NO_TENSORS),
    'zipped.safetensors': (code('system'), NO_TENSORS),
    'bare.npz': (bare_pickle, 'it is no NumPy archive but a pickle: name it .pth'),
    'zipped.npz': (code('system'), 'it is no NumPy archive but a pickle: name it .pth'),
    'objects.npz': (
        npz_of_objects,
        'it holds pickled objects, which are refused; save only its arrays',
    ),
    'arrays.npz.pth': (
        lambda path: npz_that_lies(path),
        'it is a zip, no weights; if it holds arrays of NumPy, name it .npz',
    ),
    'bomb.npz': (npz_bomb, BOMB.format('3,355,468,800')),
    'bomb.pth': (torch_bomb, BOMB.format('3,355,443,418')),
    'view.pth': (torch_view_bomb, BOMB.format('4,000,000,000,000')),
    'lies.npz': (
        npz_that_lies,
        'Unable to allocate 1.00 PiB for an array with shape (140737488355328,) and data type '
        'float64; is it complete? (SIZE bytes)',
    ),
    'lies.pth': (torch_that_lies, 'is it complete? ('),
    'promises.safetensors': (
        safetensors({'a': entry((1000,), 0, 4000)}),
        HEADER.format('incomplete metadata, file not fully covered'),
    ),
    'trailing.safetensors': (
        safetensors({'a': entry()}),
        HEADER.format('incomplete metadata, file not fully covered'),
    ),
    'long header.safetensors': (
        safetensors('{}', length=10**6),
        HEADER.format('invalid header length'),
    ),
    'endless header.safetensors': (
        safetensors('{}', length=2**63),
        HEADER.format('header too large'),
    ),
    'blank header.safetensors': (
        safetensors(b' ' * 10**8, data=b''),
        JSON.format('EOF while parsing a value at line 1 column 100000000'),
    ),
    'larger header.safetensors': (
        safetensors(b' ' * (10**8 + 1), data=b''),
        HEADER.format('header too large'),
    ),
    'overlap.safetensors': (
        safetensors({'a': entry(), 'b': entry(start=8, end=24)}),
        HEADER.format('invalid offset for tensor `b`'),
    ),
    'hole.safetensors': (
        safetensors({'a': entry(), 'b': entry(start=32, end=48)}, data=bytes(48)),
        HEADER.format('invalid offset for tensor `b`'),
    ),
    'twice.safetensors': (
        safetensors(TWICE % (spelled(), spelled(start=16, end=32)), data=bytes(32)),
        HEADER.format('invalid offset for tensor `a`'),
    ),
    'negative.safetensors': (
        safetensors({'a': entry((-4,))}),
        JSON.format('invalid value: integer `-4`, expected usize at line 1 column 63'),
    ),
    'overflow.safetensors': (
        safetensors({'a': entry((2**40, 2**40))}),
        HEADER.format('overflow computing buffer size from shape and/or element type'),
    ),
    'latin.safetensors': (
        safetensors(b'{"\xff\xfe":1}'),
        HEADER.format('invalid UTF-8 in header: invalid utf-8 sequence of 1 bytes from index 2'),
    ),
    'nested.safetensors': (
        safetensors('[' * 100_000),
        JSON.format('invalid type: sequence, expected struct HashMetadata at line 1 column 0'),
    ),
    'grid.safetensors': (
        safetensors(
            {'__metadata__': {'position_grid': '__import__("os")'}, 'a': entry()}, data=bytes(16)
        ),
        'Expecting value: line 1 column 1 (char 0); is it complete? (SIZE bytes)',
    ),
}


@pytest.mark.parametrize('name', FILES)
def test_weight_file(name, tmp_path):
    path = tmp_path / name
    write, line = FILES[name]
    write(path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for read in (read_checkpoint, contents):
        with pytest.raises(ValueError) as caught:  # noqa: PT011 (the whole line is compared)
            read(path)
        expected = f'checkpoint {str(path)!r} cannot be read: '
        text = str(caught.value)
        assert '\n' not in text
        if name == 'lies.pth':  # the reason is PyTorch's, and differs by how it reads
            assert text.startswith(expected)
            assert line in text
        else:
            assert text == expected + line.replace('SIZE', f'{path.stat().st_size:,}')
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 600_000, 'KiB'
    assert not (tmp_path / 'ran').exists()
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize('suffix', ['.npz', '.pth'])
def test_true_weights_of_zeros_are_read(suffix, tmp_path):
    """Compressed a thousand times, as a bomb is, but no larger than weights are."""
    path = tmp_path / f'zeros{suffix}'
    if suffix == '.npz':
        np.savez_compressed(path, a=np.zeros((64, 2**20), np.float32))
        assert path.stat().st_size * 900 < 2**28
    else:
        torch.save({'a': torch.zeros(64, 1).expand(64, 2**20)}, path)
        assert path.stat().st_size * 900 < 2**28
    assert read_checkpoint(path)['a'].shape == (64, 2**20)


def test_names_are_refused_alike(tmp_path):
    for name in ('eval.pth', 'view.pth', 'bomb.npz', 'overlap.safetensors'):
        FILES[name][0](tmp_path / name)
        with pytest.raises(ValueError, match='cannot be read'):
            names(tmp_path / name)
