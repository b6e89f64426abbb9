"""Files that nobody should trust: weights that carry code, and archives that lie about their size.

Each function writes one file. Code in it would make the file `ran` beside it.
"""

import argparse
import copy
import io
import json
import os
import pickle
import struct
import tarfile
import zipfile

import numpy as np
import torch
from mmengine.logging import HistoryBuffer


class Call:
    """Pickles into a call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class Settings(argparse.Namespace):
    """An allowed class's child, with code in what unpickling calls."""

    def __setstate__(self, state):
        os.system(state['command'])


def _touch(path):
    return f'touch {path.parent / "ran"}'


def _system(path):
    return Call(os.system, _touch(path))


def _eval(path):
    return Call(eval, f'open({str(path.parent / "ran")!r}, "w")')


def _exec(path):
    return Call(exec, f'open({str(path.parent / "ran")!r}, "w")')


def _chain(path):
    """`getattr` of an allowed class, to climb to its module's globals."""
    return Call(getattr, Call(getattr, HistoryBuffer, '__init__'), '__globals__')


def _child(path):
    return Settings(command=_touch(path))


CODE = {
    'system': (_system, 'posix.system'),
    'eval': (_eval, 'eval'),
    'exec': (_exec, 'exec'),
    'getattr': (_chain, 'builtins.getattr'),
    'child': (_child, 'hostile_files.Settings'),
}


def code(kind, place='state_dict', *, zipped=True):
    """A PyTorch file with weights, and code of a kind at a place."""

    def write(path):
        tensors = {'a.weight': torch.ones(2, 3)}
        content = dict(state_dict=tensors, meta={}, message_hub={}, optimizer={})
        content[place] = dict(content.get(place) or {}, evil=CODE[kind][0](path))
        torch.save(content, path, _use_new_zipfile_serialization=zipped)

    return write


def bare_pickle(path):
    """Pickled by Python, not by PyTorch."""
    path.write_bytes(pickle.dumps({'a': _system(path)}, protocol=2))


def legacy_tar(path):
    """The format of PyTorch before 0.1.10, whose members are pickles."""
    with tarfile.open(path, 'w') as archive:
        for name in ('sys_info', 'pickle', 'storages', 'tensors'):
            content = pickle.dumps({'a': _system(path)}, protocol=2)
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


def npz_of_objects(path):
    np.savez(path, a=np.ones(3), evil=np.array([_system(path)], dtype=object))


def npy_of_objects(path):
    with path.open('wb') as file:  # the suffix may be another
        np.save(file, np.array([_system(path)], dtype=object))


def npz_bomb(path):
    """200 arrays of 16 MiB of zeros that share 16 KB, as those of zip bombs do."""
    zeros = io.BytesIO()
    np.save(zeros, np.zeros(2**24, np.uint8))
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
        archive.writestr('0.npy', zeros.getvalue())
        _share(archive, [f'{i}.npy' for i in range(1, 200)])


def _share(archive, names):
    """Members of other names, with the bytes of the last one."""
    for name in names:
        archive.filelist.append(copy.copy(archive.filelist[-1]))
        archive.filelist[-1].filename = name


def npz_that_lies(path):
    """An array whose header promises a petabyte."""
    header = io.BytesIO()
    shape = dict(descr='<f8', fortran_order=False, shape=(2**47,))
    np.lib.format.write_array_header_1_0(header, shape)
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('a.npy', header.getvalue() + bytes(64))


def torch_bomb(path):
    """A PyTorch file that is deflated, with 200 storages of 16 MiB of zeros that share 16 KB."""
    plain = io.BytesIO()
    torch.save({'a': torch.zeros(2**24, dtype=torch.uint8)}, plain)
    with zipfile.ZipFile(plain) as old, zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as new:
        names = sorted(old.namelist(), key=lambda name: name.endswith('/data/0'))
        for name in names:
            new.writestr(name, old.read(name))
        _share(new, [names[-1][:-1] + str(i) for i in range(1, 200)])


def torch_view_bomb(path):
    """One value, seen as 10^12."""
    torch.save({'state_dict': {'a.weight': torch.ones(1).expand(10**6, 10**6)}}, path)


def torch_that_lies(path):
    """A storage of which the file holds a millionth."""
    plain = io.BytesIO()
    torch.save({'a': torch.ones(1000)}, plain)
    with zipfile.ZipFile(plain) as old, zipfile.ZipFile(path, 'w') as new:
        for entry in old.infolist():
            small, large = b'M' + struct.pack('<H', 1000), b'J' + struct.pack('<i', 10**9)
            new.writestr(entry.filename, old.read(entry).replace(small, large))


def safetensors(header, data=b'\0' * 64, *, length=None):
    """A file with this header, as text or bytes, whose length may be a lie."""

    def write(path):
        text = header if isinstance(header, (bytes, str)) else json.dumps(header)
        text = text.encode() if isinstance(text, str) else text
        size = len(text) if length is None else length
        path.write_bytes(struct.pack('<Q', size) + text + data)

    return write


def entry(shape=(4,), start=0, end=16, dtype='F32'):
    return dict(dtype=dtype, shape=list(shape), data_offsets=[start, end])
