"""LoRA by peft: small trained updates of linear layers, everything else frozen."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from vit_backbones.arguments import LARGEST, integer, rate
from vit_backbones.errors import counted, some
from vit_backbones.sources.copies import twin

_OPTIONS = ('r', 'alpha', 'targets', 'dropout')
_LINEAR = '_linear'  # `in_proj` of PyTorch's attention is opened to a layer `in_proj_linear`


def inject(vit: nn.Module, lora: Mapping[str, Any]) -> int:
    """Add low-rank updates, which start at zero, to linear layers of a model, in place.

    Source: Hu et al., LoRA (arXiv 2106.09685), by peft (Apache-2.0).

    Args:
        vit: The model; all its own parameters are frozen.
        lora: `r`, the rank (8); `alpha`: updates are scaled by alpha / r (16); `targets`, ends of
            the names of linear layers (`('qkv',)`), `in_proj` for the queries, keys and values of
            PyTorch's attention; `dropout` of their inputs (0).

    Returns:
        Alpha.
    """
    if not isinstance(lora, Mapping):
        raise TypeError(f'lora takes a dict of {", ".join(_OPTIONS)}, got {lora!r}')
    if unknown := set(lora) - set(_OPTIONS):
        raise ValueError(f'lora has no {sorted(unknown)[0]!r}; it takes {", ".join(_OPTIONS)}')
    try:
        from peft import LoraConfig, inject_adapter_in_model

        from vit_backbones.low_rank import UpdatedLinear
    except ImportError as error:
        raise ImportError('lora needs peft: pip install peft') from error
    config = LoraConfig(
        r=integer('lora.r', lora.get('r', 8), 1, LARGEST),
        lora_alpha=integer('lora.alpha', lora.get('alpha', 16), 1, LARGEST),
        # a pattern: peft takes names in a list for ends of names, of other layers too
        target_modules='|'.join(map(re.escape, _opened(vit, lora.get('targets', ('qkv',))))),
        lora_dropout=rate('lora.dropout', lora.get('dropout', 0.0)),
    )
    config._register_custom_module({nn.Linear: UpdatedLinear})  # peft's way for own layers
    inject_adapter_in_model(config, vit)
    return config.lora_alpha


def check_use(model: nn.Module, images: Tensor) -> None:
    """Run a copy of a model with updates, and back; it needs no values and takes no memory.

    Raises:
        ValueError: If some updates change no output, or have a dropout that cannot act.
    """
    try:
        called, used = _trial(model, images.to('meta'))
    except Exception as error:  # a few models look into their tensors
        if 'meta' not in str(error):
            raise
        called, used = _trial(model, images)
    layers = dict(_updated(model))
    if unused := [_shown(name) for name in layers if name not in used]:
        raise ValueError(
            f'lora.targets name {counted(len(unused), "layer")} on which no output of this model '
            f'depends ({some(unused)}): their updates would never learn; name longer ends, which '
            f'leave them out'
        )
    dropped = any(isinstance(each.lora_dropout['default'], nn.Dropout) for each in layers.values())
    if dropped and (read := [_shown(name) for name in layers if name not in called]):
        raise ValueError(
            f'lora.dropout drops inputs of layers, and this model reads the weights of '
            f'{counted(len(read), "layer")} without calling them ({some(read)}): give dropout=0, '
            f'or leave them out of targets'
        )


def merge(vit: nn.Module) -> None:
    """Add the updates to their layers for good, in place; layers and names are as before."""
    for name, layer in list(_updated(vit)):
        layer.merge(safe_merge=True)  # into a copy: weights may be those of another model
        vit.set_submodule(name, layer.get_base_layer())
        if name.endswith(f'.in_proj{_LINEAR}'):
            from vit_backbones.low_rank import close_attention

            close_attention(vit.get_submodule(name.rpartition('.')[0]))


def _opened(vit: nn.Module, targets: object) -> list[str]:
    """Names of the layers that targets name; attention among them is opened."""
    from vit_backbones.low_rank import can_open, open_attention

    targets = [targets] if isinstance(targets, str) else targets
    if not isinstance(targets, (list, tuple, set)):
        raise TypeError(f'lora.targets takes ends of names of linear layers, got {targets!r}')
    if not targets:
        raise ValueError('lora.targets is empty: name ends of linear layers, as qkv')
    stacked = {f'{name}.in_proj': each for name, each in vit.named_modules() if can_open(each)}
    linear = [name for name, layer in vit.named_modules() if isinstance(layer, nn.Linear)]
    wanted = []
    for target in targets:
        found = [name for name in (*linear, *stacked) if _ends(name, target)]
        if not found:
            _refuse(vit, target, (*linear, *stacked))
        wanted += found
    for name in stacked.keys() & wanted:
        open_attention(stacked[name])
    return [name + _LINEAR if name in stacked else name for name in wanted]


def _refuse(vit: nn.Module, target: object, linear: Iterable[str]) -> NoReturn:
    others = {type(each).__name__ for n, each in vit.named_modules() if _ends(n, target)}
    no = f'which is a {min(others)}' if others else 'and no linear layer of the model ends so'
    ends = sorted({name.rpartition('.')[2] for name in linear})
    raise ValueError(
        f'lora.targets holds {target!r}, {no}; only linear layers can have updates, here '
        f'{", ".join(ends) or "none"}'
    )


def _ends(name: str, target: object) -> bool:
    return f'.{name}'.endswith(f'.{target}')


@torch.enable_grad()
def _trial(model: nn.Module, images: Tensor) -> tuple[set[str], set[str]]:
    """Names of the updated layers that a model calls, and of those that its outputs need."""
    copy = twin(model, lambda tensor: tensor.to(images.device)).eval()
    layers, called = dict(_updated(copy)), set()
    for name, layer in layers.items():
        layer.register_forward_pre_hook(lambda *_, name=name: called.add(name))
    total = sum(output.sum() for output in copy(images))
    ups = [layer.lora_B['default'].weight for layer in layers.values()]
    if not total.requires_grad:
        return called, set()
    gradients = torch.autograd.grad(total, ups, allow_unused=True)
    return called, {n for n, each in zip(layers, gradients, strict=True) if each is not None}


def _updated(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    return ((name, each) for name, each in module.named_modules() if hasattr(each, 'base_layer'))


def _shown(name: str) -> str:
    return name.removeprefix('vit.').removesuffix(_LINEAR)
