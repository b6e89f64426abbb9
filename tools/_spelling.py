"""Arguments of the library in a text, spelled as a shell takes them."""

import re
from collections.abc import Mapping


def with_flags(text: str, flags: Mapping[str, str]) -> str:
    """Spell the arguments in a text as a shell takes them.

    `amp=True` and `layers=...` become `--amp` and `--layers`, `size=(64, 96)` becomes
    `--size 64 96`, and `pool='avg'` becomes `--pool avg`.
    """

    def spelled(found: re.Match[str]) -> str:
        name, value, several, quoted, following = found.groups()
        if words := several or quoted:
            return f'{flags[name]} {words.replace(",", "")}'
        return flags[name] + (' ' if not value and re.match(r'[^,;:)]', following) else '')

    if not flags:
        return text
    for name, flag in flags.items():
        if flag.startswith('--no-'):
            text = text.replace(f'{name}=False', flag)
    text = re.sub(rf'^({"|".join(flags)})(?= (must|takes)\b)', lambda m: flags[m[1]], text)
    # not inside a path, nor before False and None; only `options` are given a path that is bare
    names = rf'(?<![\w./\'"=-])(?!(?!options=)\S*[/*])({"|".join(flags)})=(?!False\b|None\b)'
    values = r'(True\b|\.\.\.|\(([^()]*)\)|\'([\w.+-]+)\'|)(?=(\S?))'
    return re.sub(names + values, spelled, text)
