"""LoRA by peft: small trained updates of linear layers, everything else frozen."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from vit_backbones.arguments import integer, rate

_OPTIONS = ('r', 'alpha', 'targets', 'dropout')


def inject(vit: nn.Module, lora: Mapping[str, Any]) -> None:
    """Add low-rank updates, which start at zero, to linear layers of a model, in place.

    Source: Hu et al., LoRA (arXiv 2106.09685), by peft (Apache-2.0).

    Args:
        vit: The model; all its own parameters are frozen.
        lora: `r`, the rank (8); `alpha`: updates are scaled by alpha / r (16); `targets`, ends of
            the names of linear layers (`('qkv',)`); `dropout` of their inputs (0).
    """
    if not isinstance(lora, Mapping):
        raise TypeError(f'lora takes a dict of {", ".join(_OPTIONS)}, got {lora!r}')
    unknown = set(lora) - set(_OPTIONS)
    if unknown:
        raise ValueError(f'lora has no {sorted(unknown)[0]!r}; it takes {", ".join(_OPTIONS)}')
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise ImportError('lora needs peft: pip install peft') from error
    targets = lora.get('targets', ('qkv',))
    targets: Sequence[str] = [targets] if isinstance(targets, str) else list(targets)
    if not targets:
        raise ValueError('lora.targets is empty: name ends of linear layers, as qkv')
    linear = [name for name, layer in vit.named_modules() if isinstance(layer, nn.Linear)]
    for target in targets:
        if not any(f'.{name}'.endswith(f'.{target}') for name in linear):
            ends = sorted({name.rpartition('.')[2] for name in linear})
            raise ValueError(
                f'lora.targets holds {target!r}, and no linear layer of the model ends so; there '
                f'are {", ".join(ends)}'
            )
    config = LoraConfig(
        r=integer('lora.r', lora.get('r', 8), 1),
        lora_alpha=integer('lora.alpha', lora.get('alpha', 16), 1),
        target_modules=[n for n in linear if any(f'.{n}'.endswith(f'.{t}') for t in targets)],
        lora_dropout=rate('lora.dropout', lora.get('dropout', 0.0)),
    )
    inject_adapter_in_model(config, vit)


def merge(vit: nn.Module) -> None:
    """Add the updates to their layers for good, in place; layers and names are as before."""
    for name, layer in list(vit.named_modules()):
        if hasattr(layer, 'base_layer'):
            layer.merge(safe_merge=True)  # into a copy: weights may be those of another model
            vit.set_submodule(name, layer.get_base_layer())


def respell(tensors: dict[str, Tensor], names: Collection[str]) -> None:
    """Rename tensors in place for layers that hold updates, where those of the file do not."""
    for name in names:
        plain = name.replace('.base_layer.', '.')
        if plain != name and plain in tensors:
            tensors[name] = tensors.pop(plain)
