"""Where published weights come from: a repository of the Hugging Face hub, and a file in it."""

import contextlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import timm

# By model, as Sapiens' own configs name the files (github.com/facebookresearch/sapiens)
_SAPIENS = {
    'sapiens_0.3b': 'sapiens_0.3b_epoch_1600_clean.pth',
    'sapiens_0.6b': 'sapiens_0.6b_epoch_1600_clean.pth',
    'sapiens_1b': 'sapiens_1b_epoch_173_clean.pth',
    'sapiens_2b': 'sapiens_2b_epoch_660_clean.pth',
}

_OF_TRAINING = re.compile(r'(best_\w+_)?(epoch|iter)_\d+\.pth')  # as MMEngine names its checkpoints


class Published(NamedTuple):
    """A file of weights on the hub, and their licence as timm or the authors state it."""

    repository: str
    file: str
    licence: str | None

    @property
    def page(self) -> str:
        """The address of the page that describes them."""
        return f'https://huggingface.co/{self.repository}'

    def command(self, folder: str | Path = 'weights', name: str | None = None) -> str:
        """The line for a shell that downloads the file into a folder, under another name if any."""
        line = f'hf download {self.repository} {self.file} --local-dir {shlex.quote(str(folder))}'
        if name in (None, self.file):
            return line
        places = (shlex.quote(str(Path(folder) / each)) for each in (self.file, name))
        return ' '.join([line, '&& mv', *places])


def published(source: object, model_name: object) -> Published | None:
    """The weights that the authors of a model publish; `None` where we know of none."""
    find = _FINDERS.get(source) if isinstance(source, str) else None
    return find(model_name) if find and isinstance(model_name, str) else None


def where_to_get(source: object, model_name: object, path: str | Path) -> str:
    """The end of a message on a file of weights that does not exist, or `''`.

    The file gets the name of `path` only if that is the model's own.
    """
    if _OF_TRAINING.fullmatch(Path(path).name):
        return '; a training writes files of such names: run that one first, or give another file'
    if (found := published(source, model_name)) is None:
        return ''
    path, own = Path(path), Path(found.file)
    stems = (own.stem, model_name, model_name.split('.')[0])
    is_named = path.name in {f'{stem}{own.suffix}' for stem in stems}
    line = found.command(path.parent, path.name if is_named else None)
    then = '' if is_named else f', and give {path.parent / own} instead'
    return f'; get the published weights of {model_name} by: {line}{then}'


@contextlib.contextmanager
def missing_with_fix(source: object, model_name: object, path: str | Path) -> Iterator[None]:
    """Let the error of a file that does not exist name the command that downloads it."""
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(f'{error}{where_to_get(source, model_name, path)}') from None


def no_weights(model_name: object, why: object) -> RuntimeError:
    """The error for pretrained weights that cannot be had."""
    return RuntimeError(
        f'no pretrained weights for {model_name!r}: {why}. Give a local file with checkpoint=..., '
        f'or leave pretrained=True out for random weights'
    )


def _of_timm(model_name: str) -> Published | None:
    try:
        config = timm.get_pretrained_cfg(model_name)
    except (RuntimeError, ValueError):  # no such name, or no such weights
        return None
    if config is None or not config.hf_hub_id:
        return None
    return Published(
        config.hf_hub_id, config.hf_hub_filename or 'model.safetensors', config.license
    )


def _of_sapiens(model_name: str) -> Published | None:
    if (file := _SAPIENS.get(model_name)) is None:
        return None
    folder = f'sapiens_host/pretrain/checkpoints/{model_name}'
    return Published('facebook/sapiens', f'{folder}/{file}', 'cc-by-nc-4.0')


_FINDERS = {'timm': _of_timm, 'sapiens': _of_sapiens}
