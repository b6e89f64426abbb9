"""What `tools/visualize.py` does."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from vit_backbones.devices import choose_device
from vit_backbones.evaluation.side_by_side import draw_predictions
from vit_backbones.features.views import Picture, draw_attention, draw_pca, reader_of
from vit_backbones.files import check_writable, write_whole
from vit_backbones.images import ImageWalk, find_images
from vit_backbones.models.chosen import Choice, load_backbone
from vit_backbones.models.trained import load_trained
from vit_backbones.pictures.canvas import Tile, draw_sheet, in_rows, png, thumbnail
from vit_backbones.terminal import quiet_warnings

_MOST_TILES = 40  # of a contact sheet
_SHEET_WIDTH = 2400
_TILE = (1188, 240)  # the largest; two of them fit beside each other


def picture_features(
    choice: Choice,
    images: Sequence[str],
    out: str | Path,
    *,
    size: Sequence[int] | None = None,
    joint: bool = False,
    device: str | None = None,
) -> str:
    """Write `NAME_pca.png` for each image, and `contact_sheet.png`.

    Args:
        choice: The backbone; by default four layers, evenly spread, with the final norm on each.
        images: As `find_images` takes them.
        out: Folder for the pictures.
        size: As of `draw_pca`.
        joint: As of `draw_pca`.
        device: `'cpu'`, `'cuda'`, ...; by default the GPU if there is one.

    Returns:
        The closing line.

    Raises:
        ValueError: For what does not fit together; the message says what to do.
        OSError: For files that are not there or cannot be written.
    """
    choice = choice._replace(layers='even4' if choice.layers is None else choice.layers)
    check_writable(out, folder=True)
    walk = ImageWalk(find_images(images), 'drawing')
    loaded = load_backbone(choice, out_type='featmap', norm='all')
    loaded.backbone.to(choose_device(device))
    line = _save(draw_pca(loaded, walk, size, joint=joint), Path(out), 'pca')
    return line + walk.close(Path(out))


def picture_attention(
    choice: Choice,
    images: Sequence[str],
    out: str | Path,
    *,
    size: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
    device: str | None = None,
) -> str:
    """Write `NAME_attention.png` for each image, and `contact_sheet.png`.

    Args:
        choice: The backbone; by default its last layer.
        images: As for `picture_features`.
        out: Likewise.
        size: Likewise.
        heads: As of `draw_attention`.
        device: As for `picture_features`.

    Returns:
        The closing line.

    Raises:
        ValueError: As `picture_features`.
        OSError: Likewise.
    """
    choice = choice._replace(layers=[-1] if choice.layers is None else choice.layers)
    check_writable(out, folder=True)
    walk = ImageWalk(find_images(images), 'drawing')
    loaded = load_backbone(choice, out_type='featmap')
    loaded.backbone.to(choose_device(device))
    line = _save(draw_attention(loaded, walk, size, heads), Path(out), 'attention')
    return f'{line} · attention of the {reader_of(loaded)}{walk.close(Path(out))}'


def picture_predictions(
    config: str,
    checkpoint: str,
    out: str | Path,
    *,
    options: Sequence[str] = (),
    split: str = 'val',
    num: int = 8,
    score_thr: float = 0.3,
    device: str | None = None,
) -> str:
    """Write `NAME_predictions.png` for images of a config's dataset, and `contact_sheet.png`.

    Args:
        config: Path of an mmdet or mmseg config.
        checkpoint: File that its training wrote.
        out: As for `picture_features`.
        options: `key=value` changes of the config.
        split: As of `draw_predictions`.
        num: Likewise.
        score_thr: Likewise.
        device: As for `picture_features`.

    Returns:
        The closing line.

    Raises:
        ValueError: As `picture_features`.
        OSError: Likewise.
    """
    check_writable(out, folder=True)
    with quiet_warnings():
        trained = load_trained(config, checkpoint, options, device=device)
        drawn = draw_predictions(trained, split=split, num=num, score_thr=score_thr)
        return _save(drawn, Path(out), 'predictions')


def _save(pictures: Iterable[Picture], out: Path, kind: str) -> str:
    """Write pictures as they come, and the sheet; what there is now, in words."""
    count, tiles = 0, []
    for count, (name, picture) in enumerate(pictures, start=1):
        write_whole(out / f'{name}_{kind}.png', png(picture))
        if count <= _MOST_TILES:
            small = thumbnail(picture, _TILE[0], min(picture.height, _TILE[1]))
            tiles.append(Tile(small, name))
    if not tiles:
        return 'no pictures'
    write_whole(out / 'contact_sheet.png', png(draw_sheet(in_rows(tiles, _SHEET_WIDTH))))
    which = f' of the first {_MOST_TILES}' if count > _MOST_TILES else ''
    told = f'{count} picture{"s" * (count > 1)}'
    return f'{told}: {out}/*_{kind}.png, {out}/contact_sheet.png{which}'
