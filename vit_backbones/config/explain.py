"""One line for an exception of the libraries, with the fix where it is known."""

import re
import traceback

from vit_backbones.config.registries import close_arguments, close_names, scopes_of


def describe(raised: BaseException) -> str:
    """One line for an exception of the set-up.

    Args:
        raised: Raised while a config, model or dataset was built.

    Returns:
        What is wrong and, where that is known, what to do.
    """
    text = raised.args[0] if isinstance(raised, KeyError) and raised.args else raised
    text = ' '.join(str(text).split())
    text = re.sub(r'^class `(\w+)` in \S+?: ', r'\1: ', text)
    found = re.match(r'(\S+) is not in the (\S+)::(.+?) registry', text)
    if found:
        name, scope, kind = found.groups()
        return f'{name!r} is not in the {scope}::{kind} registry{_advice(name, scope, kind)}'
    if 'both backbone and segmentor set pretrained' in text:
        return (
            'model.pretrained and model.backbone.pretrained are both given: set the first to None'
        )
    if "unexpected keyword argument '_delete_'" in text:
        return f'{text}; the config replaces nothing at that place, so leave _delete_ out'
    if text.startswith('end should be larger than begin'):
        return (
            f'{text}: a schedule of param_scheduler begins when the training has ended; set its '
            f'begin to 0, or train_cfg.max_epochs higher'
        )
    unknown = re.match(r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'", text)
    if unknown and (close := close_arguments(*unknown.groups())):
        return f'{text}; did you mean {close[0]!r}?'
    if 'got an unexpected keyword argument' in text:
        return (
            f'{text}; if the config replaces an inherited dict, add _delete_=True to it, or the '
            f'old keys stay'
        )
    known = isinstance(raised, (ValueError, TypeError, OSError, ImportError))
    if not text and raised.__traceback__ is not None:  # a bare assertion says what it asserts
        text = traceback.extract_tb(raised.__traceback__)[-1].line
    return text if known and text else f'{type(raised).__name__}: {text}'.rstrip(': ')


def _advice(name: str, scope: str, registry_name: str) -> str:
    """What to write instead of a `type` that is not registered."""
    scopes = scopes_of(name, registry_name)
    if scopes:
        whole = f', or default_scope = {scopes[0]!r} for the whole config'
        return f", but in {scopes[0]}'s: write '{scopes[0]}.{name}'{whole * (scope == 'mmengine')}"
    close = close_names(name, registry_name)
    if close:
        return f'; did you mean {" or ".join(close)}?'
    return '; is the module that registers it in custom_imports?'
