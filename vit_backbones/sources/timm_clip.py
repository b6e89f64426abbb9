"""The activation of CLIP's weights: the keys of a file do not show it, and timm has models of both.

OpenAI's run with `quick_gelu`, and so do those of others that started from their code; LAION's run
with `gelu`.
"""

import json
from collections.abc import Collection
from pathlib import Path

import timm
from torch import nn

from vit_backbones.checkpoints.origin import UNKNOWN

_LAYOUTS, _OF_TIMM = ('transformers CLIP', 'OpenCLIP'), ('timm', UNKNOWN, '')
# In the files that OpenAI published, beside the weights
_OPENAI = {'input_resolution', 'context_length', 'vocab_size'}


def activation_remark(
    model_name: str, vit: nn.Module, layout: str, path: str | Path | None, names: Collection[str]
) -> str | None:
    """A line on weights that may need another activation than their model; `None` without a doubt.

    Args:
        layout: That of the file's keys; `''` for timm's own weights.
        path: Of the file, beside which a config.json may be.
        names: Keys of the file.
    """
    model_name = str(model_name).rpartition('/')[2]  # of a hub
    own, other = _activation(vit), _other_model(model_name, vit)
    if '_clip_' not in model_name or own is None or not other:
        return None
    needed, reason = _needed(model_name, vit, layout, path, names)
    if needed is None and (layout != 'transformers CLIP' or own == 'quick_gelu'):
        return None  # the name stands for quick_gelu, or nothing speaks for it
    if needed is None:
        tagged = _tagged(model_name)
        meant = f'; for others a tag shows that {own} is meant, such as model_name={tagged!r}'
        return (
            f'the keys do not show the activation of these weights: {model_name} has {own}, and '
            f"OpenAI's CLIP needs model_name={other}{meant if tagged else ''}"
        )
    if needed == own:
        return None
    return f'the weights need {needed} ({reason}), and {model_name} has {own}: take {other}'


def _activation(vit: nn.Module) -> str | None:
    kinds = {type(module).__name__ for module in vit.modules()}
    return 'quick_gelu' if 'QuickGELU' in kinds else 'gelu' if 'GELU' in kinds else None


def _other_model(model_name: str, vit: nn.Module) -> str:
    """timm's model of the other activation: of the same size, or else of another; `''` for none."""
    name, _, tag = model_name.partition('.')
    start, _, size = name.partition('_clip_')
    other = f'{start}_clip_{size.removeprefix("quickgelu_")}'
    if other == name:
        other = f'{start}_clip_quickgelu_{size}'
    if timm.is_model(other):
        tagged = f'{other}.{tag}'
        return repr(tagged if tagged in timm.list_pretrained(f'{other}.*') else other)
    alike = timm.list_models(f'{start}_clip_quickgelu_*')
    if 'quickgelu' in name or not alike:
        return ''
    return f'{alike[0]!r} with img_size={vit.pretrained_cfg["input_size"][-2:]}'


def _tagged(model_name: str) -> str:
    """The model's name with a tag of weights that run with its activation; `''` for none."""
    names = timm.list_pretrained(f'{model_name}.*')
    own = [name for name in names if not _noted_quick(timm.get_pretrained_cfg(name).notes)]
    return min(own, key=lambda name: ('.laion' not in name, len(name)), default='')


def _noted_quick(notes: Collection[str] | None) -> bool:
    """Whether timm notes on weights that they need `quick_gelu`."""
    return 'QuickGELU' in ' '.join(notes or ())


def _needed(
    model_name: str, vit: nn.Module, layout: str, path: str | Path | None, names: Collection[str]
) -> tuple[str | None, str]:
    """The activation that weights need, if anything shows it, and what does."""
    if layout in _LAYOUTS:
        for beside in ('config.json', 'open_clip_config.json'):
            if found := _configured(Path(path).expanduser().with_name(beside)):
                return found, f'{beside} beside them'
        if _OPENAI <= set(names):
            return 'quick_gelu', "OpenAI's own file"
    elif layout not in _OF_TIMM:
        return None, ''
    tagged, quick = '.' in model_name or not layout, _noted_quick(vit.pretrained_cfg.get('notes'))
    if tagged and quick and 'quickgelu' not in model_name:
        return 'quick_gelu', "timm's note on them"
    return (_activation(vit), "the model's name") if tagged else (None, '')


def _configured(path: Path) -> str | None:
    """The activation in a config of transformers' CLIP or of OpenCLIP; `None` without one."""
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError):
        return None
    if not isinstance(content, dict):
        return None
    if isinstance(clip := content.get('model_cfg'), dict):
        return 'quick_gelu' if clip.get('quick_gelu') else 'gelu'
    if not str(content.get('model_type')).startswith('clip'):
        return None
    vision = content.get('vision_config') or content
    act = vision.get('hidden_act', 'quick_gelu') if isinstance(vision, dict) else None
    return act if act in ('gelu', 'quick_gelu') else None
