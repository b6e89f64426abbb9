"""Normalise and check arguments: pure functions, errors that name value, range and reason."""

from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path

import torch
from torch import Tensor, nn

from vit_backbones.attention import Attention
from vit_backbones.position import Grid

NORMS = ('last', 'all', 'none')
LARGEST = 65536  # channels, pixels of a side; more is a mistake that would fill the memory


def resolve_out_indices(out_indices: int | str | Sequence[int], depth: int) -> tuple[int, ...]:
    """Turn an int, a sequence of ints, `'last4'` or `'even4'` into indices in [0, depth)."""
    presets = {
        'last4': tuple(range(depth - 4, depth)),
        'even4': tuple(i * depth // 4 - 1 for i in range(1, 5)),
    }
    if isinstance(out_indices, str):
        choice('out_indices', out_indices, presets)
        if depth < 4:
            raise ValueError(f'out_indices={out_indices!r} needs at least 4 blocks, got {depth}')
        return presets[out_indices]
    indices = out_indices if isinstance(out_indices, Iterable) else [out_indices]
    reason = f', because the model has {depth} blocks'
    resolved = tuple(integer('out_indices', i, -depth, depth - 1, reason) % depth for i in indices)
    if not resolved or len(set(resolved)) < len(resolved):
        raise ValueError(f'out_indices must name different blocks, got {out_indices!r}')
    return resolved


def choice(name: str, value: object, allowed: Iterable[str]) -> str:
    """`value` if it is one of `allowed`, else a `ValueError`."""
    if not isinstance(value, str) or value not in tuple(allowed):
        raise ValueError(f'{name} must be one of {", ".join(map(repr, allowed))}, got {value!r}')
    return value


def flag(name: str, value: object) -> bool:
    """`value` if it is a bool, else a `TypeError`."""
    if not isinstance(value, bool):
        raise TypeError(f'{name} must be True or False, got {value!r}')
    return value


def rate(name: str, value: object) -> float:
    """`value` as a float of [0, 1), else a `ValueError`."""
    if not isinstance(value, Real) or not 0 <= value < 1:
        raise ValueError(f'{name} must be in [0, 1), got {value!r}')
    return float(value)


def pair(name: str, value: int | Sequence[int] | None) -> Grid | None:
    """(height, width) of an int or of a sequence of two; `None` stays `None`."""
    if value is None:
        return None
    two = isinstance(value, Iterable) and getattr(value, 'ndim', 1)
    both = tuple(value) if two else (value, value)
    if len(both) != 2:
        raise ValueError(f'{name} must be an int or (height, width), got {value!r}')
    return tuple(integer(name, side, 1, LARGEST) for side in both)


def sides(name: str, value: int | Sequence[int]) -> Grid:
    """`pair` of a value that must be given."""
    if value is None:
        raise TypeError(f'{name} must be an int or (height, width), got None')
    return pair(name, value)


def integer(name: str, value: object, low: int, high: int | None = None, reason: str = '') -> int:
    """`value` as an int of [low, high], else an error with `reason`; NumPy's pass, bools do not."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f'{name} takes ints, got {value!r}')
    if value < low or (high is not None and value > high):
        bounds = f'in [{low}, {high}]'
        if high in (None, LARGEST):
            bounds = f'at least {low}' if value < low else f'at most {high}'
        raise ValueError(f'{name} must be {bounds}{reason}, got {value}')
    return int(value)


def several(name: str, value: object, low: int, high: int | None = None) -> tuple[int, ...]:
    """`integer` of each entry of a sequence, at least one."""
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        raise TypeError(f'{name} takes a sequence of ints, got {value!r}')
    found = tuple(integer(name, each, low, high) for each in value)
    if not found:
        raise ValueError(f'{name} is empty: give at least one int')
    return found


def check_type(name: str, tensor: Tensor, module: nn.Module) -> None:
    """Refuse a tensor of a type with which the weights of a module cannot compute.

    Autocast casts all but float64. In distributed processes sharded weights may be cast in use, so
    that only integers are refused. Nothing is checked while a model is compiled or exported.
    """
    if torch.compiler.is_compiling():
        return
    if not tensor.is_floating_point():
        raise ValueError(f'{name} must be floats, got {tensor.dtype}: normalise them, as floats')
    own = next((each.dtype for each in module.parameters()), tensor.dtype)
    if tensor.dtype == own or _in_processes():
        return
    if torch.float64 in (tensor.dtype, own) or not torch.is_autocast_enabled(tensor.device.type):
        raise ValueError(
            f'{name} are {tensor.dtype} and the weights {own}: give both the same type, or use '
            f'autocast'
        )


def _in_processes() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def positive(name: str, value: object) -> float:
    """Check a number above 0."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        raise ValueError(f'{name} must be a number above 0, got {value!r}')
    return value


def check_weights(
    pretrained: object, checkpoint: object, init_cfg: object, shared: bool = False
) -> None:
    """Refuse weights from more than one place, or for an existing model (`shared`)."""
    if not (pretrained is None or isinstance(pretrained, bool)):
        raise ValueError(
            f'pretrained must be True or False, got {pretrained!r}; does the config inherit '
            f'model.pretrained? Set it to None'
        )
    _check_init_cfg(init_cfg)
    if shared and (checkpoint or init_cfg):
        raise TypeError(
            'checkpoint and init_cfg would write into the weights that are shared with the '
            'existing model: load them into that model'
        )
    if bool(pretrained) + bool(checkpoint) + bool(init_cfg) > 1:
        raise ValueError('give one of pretrained=True, checkpoint=... and init_cfg=...')


def _check_init_cfg(init_cfg: object) -> None:
    if init_cfg is None or (isinstance(init_cfg, Mapping) and not init_cfg):
        return
    configs = init_cfg if isinstance(init_cfg, list) else [init_cfg]
    if not all(isinstance(each, Mapping) and 'type' in each for each in configs):
        raise TypeError(f"init_cfg takes dicts as dict(type='...'), got {init_cfg!r}")
    for each in configs:
        if each['type'] == 'Pretrained' and 'checkpoint' not in each:
            raise ValueError(f'init_cfg has no checkpoint, the file to read: {each!r}')


def respelled_norm(norm: str, final_norm: bool | None) -> str:
    """The value of `norm` from its two spellings; a `ValueError` if they contradict each other."""
    choice('norm', norm, NORMS)
    if final_norm is None:
        return norm
    flag('final_norm', final_norm)
    if norm != 'last' and final_norm is not (norm != 'none'):
        raise ValueError(f'norm={norm!r} and final_norm={final_norm}: give one of the two')
    return norm if final_norm else 'none'


def respelled_checkpoint(
    checkpoint: object, checkpoint_path: object, features_only: object
) -> object:
    """The checkpoint from `checkpoint` or the name of timm's wrappers, whose '' is none."""
    if features_only is not True:
        raise ValueError(
            f'features_only must be True, got {features_only!r}: this backbone gives features, '
            f"heads classify; embeddings come with out_type='cls' or pool=..."
        )
    for name, path in dict(checkpoint=checkpoint, checkpoint_path=checkpoint_path).items():
        if path is not None and not isinstance(path, str | Path):
            raise TypeError(f'{name} must be the path of a file, got {path!r}')
    if checkpoint and checkpoint_path and checkpoint != checkpoint_path:
        raise ValueError(
            f'checkpoint={str(checkpoint)!r} and checkpoint_path={str(checkpoint_path)!r} are one '
            f'argument: give one'
        )
    return checkpoint or checkpoint_path or None


def attention_options(
    window_size: object, window_block_indexes: Sequence[int], use_rel_pos: bool, mask_padding: bool
) -> Attention:
    """The attention of blocks; windows and the blocks that attend in them go together."""
    window = 0 if window_size is None else integer('window_size', window_size, 0)
    several = isinstance(window_block_indexes, Iterable)
    given = window_block_indexes if several else [window_block_indexes]
    blocks = tuple(integer('window_block_indexes', index, 0) for index in given)
    if bool(window) != bool(blocks):
        raise ValueError(
            f'window_size={window_size} and window_block_indexes={window_block_indexes} go '
            f'together: the side of windows in patches, and the blocks that attend in them, as '
            f'window_size=14, window_block_indexes=(0, 1, 3, 4, 6, 7, 9, 10)'
        )
    rel_pos, masked = flag('use_rel_pos', use_rel_pos), flag('mask_padding', mask_padding)
    return Attention(window, blocks, rel_pos, masked)
