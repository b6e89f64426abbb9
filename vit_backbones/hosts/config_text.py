"""Format the text of a config once, which MMEngine 0.10 does anew for each checkpoint it saves."""

import functools
from typing import Any

from mmengine.config import config
from yapf.yapflib import yapf_api
from yapf.yapflib.yapf_api import FormatCode

# onedl-mmengine imports yapf in each call
HOLDER = config if hasattr(config, 'FormatCode') else yapf_api


def install() -> None:
    """Let `Config.pretty_text` and `Config.dump` look up texts that were formatted before."""
    HOLDER.FormatCode = _format


def _format(text: str, *others: Any, **options: Any) -> tuple[str, bool]:
    """The formatted text, and whether it differs from `text`; only a config's is kept."""
    if others or not isinstance(options.get('style_config'), dict):
        return FormatCode(text, *others, **options)
    style = tuple(options.pop('style_config').items())
    return _formatted(text, style, tuple(options.items()))


@functools.lru_cache(maxsize=8)
def _formatted(text: str, style: tuple[Any, ...], options: tuple[Any, ...]) -> tuple[str, bool]:
    formatted, changed = FormatCode(text, style_config=dict(style), **dict(options))
    # In the texts of a path; MMEngine would fill in a variable when it reads it
    return formatted.replace('{{', r'{\x7b'), changed
