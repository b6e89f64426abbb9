"""The origin of weights: the layout of their file as a record, and the images that they expect.

The record is a tensor, so that it goes wherever the weights go: into checkpoints, copies for EMA,
other processes.
"""

from collections.abc import Collection, Mapping

import torch
from timm.data import (
    IMAGENET_DEFAULT_MEAN,
    IMAGENET_DEFAULT_STD,
    IMAGENET_INCEPTION_MEAN,
    IMAGENET_INCEPTION_STD,
    OPENAI_CLIP_MEAN,
    OPENAI_CLIP_STD,
)
from torch import Tensor

from vit_backbones.checkpoints.fitting import LAYOUT_KEY

Statistics = dict[str, object]

UNKNOWN = 'unknown'  # layout of a file of which nothing is known
TANH = 'transformers SigLIP'  # layout of files whose models approximate GELU by tanh
_LENGTH = 64  # bytes of a record


def preprocessing(mean: Collection[float], std: Collection[float]) -> Statistics:
    """Arguments of a data preprocessor for a mean and deviation of RGB images on 0-1."""
    scaled = {'mean': mean, 'std': std}
    scaled = {key: [round(255 * each, 4) for each in value] for key, value in scaled.items()}
    return scaled | {'bgr_to_rgb': True}


IMAGENET = preprocessing(IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
_HALF = preprocessing(IMAGENET_INCEPTION_MEAN, IMAGENET_INCEPTION_STD)
_CLIP = preprocessing(OPENAI_CLIP_MEAN, OPENAI_CLIP_STD)
# facebookresearch/dinov3 (DINOv3 License), `make_transform` for satellite images
_SATELLITE = preprocessing((0.430, 0.411, 0.296), (0.213, 0.156, 0.143))
# The statistics with which the files of a layout come. Those of the others come with any
_OF_LAYOUT: Mapping[str, tuple[Statistics, ...]] = {
    **dict.fromkeys(('SAM', 'transformers SAM', 'mmpretrain SAM', 'ViTDet', 'MAE'), (IMAGENET,)),
    **dict.fromkeys(('Meta DINOv2', 'transformers DINOv2', 'torchvision'), (IMAGENET,)),
    **dict.fromkeys(('Meta DINOv3', 'transformers DINOv3'), (IMAGENET, _SATELLITE)),
    'EVA': (_CLIP,),
    # LAION's ViT-L and Meta's PE have a half
    **dict.fromkeys(('transformers CLIP', 'OpenCLIP'), (_CLIP, _HALF)),
    **dict.fromkeys(('transformers SigLIP', 'big_vision'), (_HALF,)),
}


def encode(layout: str) -> Tensor:
    """The record of a layout: its name in bytes; all zero for `''`, of weights of no file."""
    return torch.tensor([*layout.encode()[:_LENGTH].ljust(_LENGTH, b'\0')], dtype=torch.uint8)


def decode(record: Tensor) -> str:
    """The layout of a record; half precision, to which some scripts cast files, does no harm."""
    if record.is_meta:
        return ''
    return bytes(record.flatten().to(torch.uint8).tolist()).rstrip(b'\0').decode(errors='replace')


def without_record(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], str | None]:
    """The tensors of a file without any record, and the layout of the outermost one, if any."""
    records = {n: t for n, t in tensors.items() if n.rpartition('.')[2] == LAYOUT_KEY}
    layout = decode(records[min(records, key=len)]) if records else None
    return {name: tensor for name, tensor in tensors.items() if name not in records}, layout


def expected(
    layout: str, own: Statistics, published: Collection[Statistics], *, named: bool
) -> Statistics | None:
    """How the weights of a file expect images; `None` where nothing shows it.

    A layout whose files all come with one normalisation shows it, whatever the model's name says.

    Args:
        own: As the library has it for the model's name.
        published: As the library has it for all weights of the architecture.
        named: Whether the name has a tag, which stands for weights.
    """
    known = _OF_LAYOUT.get(layout)
    if named and (known is None or own in known):
        return own
    fitting = [each for each in known or () if each in published] or list(known or ())
    return fitting[0] if len(fitting) == 1 else None
