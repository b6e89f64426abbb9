"""Whether MMEngine's optimizer constructor follows all options of weight decay at once."""

from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from vit_backbones.checks.findings import Finding, warning
from vit_backbones.checks.wiring import vit_of
from vit_backbones.config.facts import Facts, type_name
from vit_backbones.errors import counted, some

_DEFAULT = 'DefaultOptimWrapperConstructor'
_NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)


def weight_decay_findings(facts: Facts, model: nn.Module) -> Iterator[Finding]:
    """Whether `norm_decay_mult` and the like reach what `custom_keys` match.

    `DefaultOptimWrapperConstructor` leaves all other options out for a parameter that a key
    matches, even if the key only has an `lr_mult`.
    """
    wrapper = facts.config.get('optim_wrapper') or {}
    options = wrapper.get('paramwise_cfg') or {}
    constructor = type_name(dict(type=wrapper.get('constructor', _DEFAULT)))
    if constructor != _DEFAULT or not options.get('custom_keys'):
        return
    dropped: dict[str, list[str]] = {}
    for name, option in _optioned(model, options):
        key = _key(name, options['custom_keys'])
        if key is not None and 'decay_mult' not in options['custom_keys'][key]:
            dropped.setdefault(option, []).append(name)
    if dropped:
        names = [name for each in dropped.values() for name in each]
        yield warning(
            f'optim_wrapper.paramwise_cfg: {" and ".join(dropped)} do not reach '
            f'{counted(len(names), "parameter")} that custom_keys match, and which decay in full '
            f'({some(names)}): {_fix(model, [options[option] for option in dropped])}'
        )


def _fix(model: nn.Module, values: list[float]) -> str:
    if vit_of(model) is None or any(values):
        return 'give them longer custom_keys with a decay_mult'
    return (
        "write constructor='ViTLayerDecayConstructor' and add decay_rate=1.0 to paramwise_cfg, "
        'which keep both'
    )


def _optioned(model: nn.Module, options: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Parameters that learn and the option that MMEngine would follow for their weight decay."""
    for place, module in model.named_modules():
        depthwise = isinstance(module, nn.Conv2d) and module.in_channels == module.groups
        for name, parameter in module.named_parameters(recurse=False):
            cases = {
                'norm_decay_mult': isinstance(module, _NORMS),
                'bias_decay_mult': name == 'bias',
                'dwconv_decay_mult': depthwise,
                'flat_decay_mult': parameter.ndim == 1,
            }
            given = (o for o in cases if cases[o] and options.get(o) not in (None, 1))
            option = next(given, None)
            if parameter.requires_grad and option is not None:
                yield f'{place}.{name}'.lstrip('.'), option


def _key(name: str, custom_keys: Mapping[str, Any]) -> str | None:
    """The key that MMEngine takes for a parameter: the longest, the first of equals."""
    return next((k for k in sorted(sorted(custom_keys), key=len, reverse=True) if k in name), None)
