"""One line for an exception of the libraries, with the fix where we know it."""

import re
import traceback

from vit_backbones.config.emptied import emptied_dataset, why_empty
from vit_backbones.config.registries import close_arguments, close_names, scopes_of

# By a part of the libraries' text; the first that is in it
_FIXES = {
    "unexpected keyword argument '_delete_'": (
        '; the config replaces nothing at that place, so leave _delete_ out'
    ),
    'got an unexpected keyword argument': (
        '; if the config replaces an inherited dict, add _delete_=True to it, or the old keys stay'
    ),
    'end should be larger than begin': (
        ': a schedule of param_scheduler begins when the training has ended; set its begin to 0, '
        'or train_cfg.max_epochs higher'
    ),
}

# Ours that need a toolbox, which importing this package does not import
_OWN = {
    'AuxiliaryEncoderDecoder': 'mmseg',
    'AuxiliaryMask2Former': 'mmdet',
    'BatchedMask2FormerHead': 'mmdet',
    'BatchedSegMask2FormerHead': 'mmseg',
    'EoMT': 'mmdet',
    'EoMTHead': 'mmdet',
    'LocatedMask2FormerHead': 'mmdet',
    'PlainMaskHead': 'mmdet',
    'SegEoMT': 'mmseg',
    'SegEoMTHead': 'mmseg',
    'SegPlainMaskHead': 'mmseg',
    'SizedDetDataPreprocessor': 'mmdet',
    'SizedSegDataPreProcessor': 'mmseg',
    'WindowEncoderDecoder': 'mmseg',
}


def describe(raised: BaseException) -> str:
    """One line for an exception raised while a config, model or dataset was built."""
    if (dataset := emptied_dataset(raised)) is not None:
        return why_empty(dataset)
    text = raised.args[0] if isinstance(raised, KeyError) and raised.args else raised
    text = ' '.join(str(text).split())
    text = re.sub(r'^class `(\w+)` in \S+?: ', r'\1: ', text)
    if found := re.match(r'(\S+) is not in the (\S+)::(.+?) registry', text):
        return not_registered(*found.groups())
    if 'both backbone and segmentor set pretrained' in text:
        return (
            'model.pretrained and model.backbone.pretrained are both given: set the first to None'
        )
    unknown = re.match(r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'", text)
    if unknown and (close := close_arguments(*unknown.groups())):
        return f'{text}; did you mean {close[0]!r}?'
    if fix := next((fix for begin, fix in _FIXES.items() if begin in text), None):
        return text.removesuffix(fix) + fix  # which it has, if it was described before
    known = isinstance(raised, (ValueError, TypeError, OSError, ImportError))
    if not text and raised.__traceback__ is not None:  # for a bare assertion, its line
        text = traceback.extract_tb(raised.__traceback__)[-1].line
    return text if known and text else f'{type(raised).__name__}: {text}'.rstrip(': ')


def not_registered(name: str, scope: str, registry_name: str) -> str:
    """One line for a `type` that no imported module registers, with its fix."""
    line = f'{name!r} is not in the {scope}::{registry_name} registry'
    if name in _OWN:
        return f"{line}; add 'vit_backbones.{_OWN[name]}' to custom_imports"
    if scopes := scopes_of(name, registry_name):
        whole = f', or default_scope = {scopes[0]!r} for the whole config'
        fix = f"write '{scopes[0]}.{name}'{whole * (scope == 'mmengine')}"
        return f"{line}, but in {scopes[0]}'s: {fix}"
    if close := close_names(name, registry_name):
        return f'{line}; did you mean {" or ".join(close)}?'
    return f'{line}; is the module that registers it in custom_imports?'
