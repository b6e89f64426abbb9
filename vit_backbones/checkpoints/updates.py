"""LoRA's updates in a checkpoint: apart, added to their weights, or compared with a model's."""

from collections.abc import Iterable, Mapping, MutableMapping

from torch import Tensor

from vit_backbones.checkpoints.fitting import ALPHA_KEY
from vit_backbones.errors import counted, some

_DOWN, _UP = '.lora_A.default.weight', '.lora_B.default.weight'
_BASE = '.base_layer.'


def plain(name: str) -> str:
    """The name of a tensor as in the model without updates."""
    return name.replace('.in_proj_linear.base_layer.', '.in_proj_').replace(_BASE, '.')


def are_in(names: Iterable[str]) -> bool:
    """Whether updates are among tensors with these names."""
    return any(map(_is_update, names))


def without(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights beneath the updates, under plain names, without a record of alpha."""
    return {plain(n): t for n, t in tensors.items() if not (_is_update(n) or _is_alpha(n))}


def only(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The updates."""
    return {name: tensor for name, tensor in tensors.items() if _is_update(name)}


def alpha_in(tensors: Mapping[str, Tensor]) -> int | None:
    """The alpha that a file records; older files do not."""
    return next((int(tensor) for name, tensor in tensors.items() if _is_alpha(name)), None)


def merged(tensors: Mapping[str, Tensor], alpha: int | None) -> dict[str, Tensor]:
    """The weights with their updates, scaled by alpha / rank, under plain names.

    A `ValueError` if alpha is not known.
    """
    if alpha is None:
        raise ValueError(
            f'holds {_described(tensors)} but not their alpha, so they cannot be merged, and this '
            f'model has no lora: build it with lora=dict(...) as in the training of the file, and '
            f'merge_lora() makes it plain'
        )
    found = {}
    for name, tensor in without(tensors).items():
        layer = name.removesuffix('.weight')
        if layer.endswith('.in_proj_weight'):
            layer = layer.removesuffix('_weight') + '_linear'
        if layer != name and layer + _UP in tensors:
            down, up = tensors[layer + _DOWN].float(), tensors[layer + _UP].float()
            tensor = tensor + (up @ down * (alpha / len(down))).to(tensor)
        found[name] = tensor
    return found


def compare(
    given: Mapping[str, Tensor], alpha: int | None, own: Mapping[str, Tensor], own_alpha: int
) -> None:
    """Refuse updates that are not those of a model; an alpha of `None` is not known."""
    shapes = [{name: each.shape for name, each in tensors.items()} for tensors in (given, own)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f'holds {_described(given)}, and this model has {_described(own)}: give lora the r and '
            f'targets of the training of the file, or merge_lora() in a model built so and start '
            f'new updates from its plain weights'
        )
    if alpha not in (None, own_alpha):
        raise ValueError(
            f'holds LoRA updates of alpha={alpha}, and this model has alpha={own_alpha}: give lora '
            f'alpha={alpha}, as in the training of the file'
        )


def fit(
    state: MutableMapping[str, Tensor], prefix: str, own: Mapping[str, Tensor], alpha: int | None
) -> None:
    """Fit the tensors below a prefix to a model `own`, in place, whose updates have `alpha`.

    A `ValueError` if updates of the file are not the model's, or cannot be merged for a plain one.
    """
    given = {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}
    if are_in(given):
        beside = prefix.removesuffix('vit.') + ALPHA_KEY
        known = alpha_in({beside: state.pop(beside)}) if beside in state else None
        try:
            if alpha is not None:
                compare(only(given), known, only(own), alpha)
                return
            plain_ones = merged(given, known)
        except ValueError as error:
            raise ValueError(f'the file {error}') from None
        for name in given:
            del state[prefix + name]
        state.update({prefix + name: each for name, each in plain_ones.items()})
    for name in own:
        if plain(name) != name and prefix + plain(name) in state:
            state[prefix + name] = state.pop(prefix + plain(name))


def _is_update(name: str) -> bool:
    return name.endswith((_DOWN, _UP))


def _is_alpha(name: str) -> bool:
    return name.rpartition('.')[2] == ALPHA_KEY


def _described(tensors: Mapping[str, Tensor]) -> str:
    """Rank, number and ends of the layers that have updates."""
    downs = {name: tensor for name, tensor in tensors.items() if name.endswith(_DOWN)}
    layers = [name.removesuffix(_DOWN).removesuffix('_linear') for name in downs]
    ranks = sorted({len(tensor) for tensor in downs.values()})
    ends = sorted({layer.rpartition('.')[2] for layer in layers})
    rank = ', '.join(map(str, ranks))
    return f'LoRA updates of r={rank} in {counted(len(layers), "layer")} ({some(ends)})'
