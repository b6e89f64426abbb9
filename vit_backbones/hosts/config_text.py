"""Format the text of a config once, which MMEngine 0.10 does anew for each checkpoint it saves."""

import functools
from typing import Any

from mmengine.config import config
from yapf.yapflib.yapf_api import FormatCode


def install() -> None:
    """Let `Config.pretty_text` and `Config.dump` look up texts that were formatted before."""
    config.FormatCode = _format


def _format(text: str, style_config: dict[str, Any], **options: Any) -> tuple[str, bool]:
    return _formatted(text, tuple(style_config.items()), tuple(options.items()))


@functools.lru_cache(maxsize=8)
def _formatted(text: str, style: tuple[Any, ...], options: tuple[Any, ...]) -> tuple[str, bool]:
    formatted, changed = FormatCode(text, style_config=dict(style), **dict(options))
    # In the texts of a path; MMEngine would fill in a variable when it reads it
    return formatted.replace('{{', r'{\x7b'), changed
