"""What `tools/predict.py` does."""

from collections.abc import Sequence
from pathlib import Path

from vit_backbones.evaluation.predicting import predict
from vit_backbones.evaluation.prediction_files import ResultWriter
from vit_backbones.files import check_writable
from vit_backbones.images import ImageWalk, find_images
from vit_backbones.models.trained import load_trained
from vit_backbones.terminal import quiet_warnings


def predict_images(
    config: str,
    checkpoint: str,
    images: Sequence[str],
    out: str | Path,
    *,
    options: Sequence[str] = (),
    score_thr: float = 0.3,
    slide: tuple[int, int] | None = None,
    flip: bool = False,
    pictures: bool = True,
    batch_size: int = 1,
    device: str | None = None,
) -> str:
    """Run a trained config on images without labels, and write what it says of them.

    Args:
        config: Path of an mmdet or mmseg config.
        checkpoint: File that its training wrote.
        images: As `find_images` takes them.
        out: Folder for the results, as of `ResultWriter`.
        options: `key=value` changes of the config.
        score_thr: As of `ResultWriter`.
        slide: As of `load_trained`.
        flip: As of `predict`.
        pictures: As of `ResultWriter`.
        batch_size: As of `predict`.
        device: As of `load_trained`.

    Returns:
        The closing line.

    Raises:
        ValueError: For what does not fit together; the message says what to do.
        OSError: For files that are not there or cannot be written.
    """
    out = Path(out)
    check_writable(out, folder=True)
    with quiet_warnings():
        walk = ImageWalk(find_images(images), 'predicting')
        trained = load_trained(config, checkpoint, options, device=device, slide=slide)
        writer = ResultWriter(out, trained, score_thr=score_thr, pictures=pictures)
        for prediction in predict(trained, walk, batch_size=batch_size, flip=flip):
            writer.add(prediction)
        unreadable = walk.close(out)
    written = ', '.join(str(out / name) for name in writer.close())
    count = len(walk) - len(walk.unreadable)
    return f'{count} image{"s" * (count != 1)}: {written}{unreadable}'
