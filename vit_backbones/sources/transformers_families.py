"""The known families of transformers' vision encoders, by their model type.

Source: https://github.com/huggingface/transformers (Apache-2.0).
"""

from collections.abc import Mapping
from types import MappingProxyType

from vit_backbones.sources.transformers_kinds import Beit, ClipVision, Dinov3, Siglip2, Swin, VitDet
from vit_backbones.sources.transformers_vit import Family

# Statistics of images (0-255) in the preprocessor_config.json of the published weights
_HALF = {'mean': (127.5,) * 3, 'std': (127.5,) * 3}
_IMAGENET = {'mean': (123.675, 116.28, 103.53), 'std': (58.395, 57.12, 57.375)}
_CLIP = {'mean': (122.7709, 116.746, 104.0937), 'std': (68.5005, 66.6322, 70.3232)}
_PLAIN = {'layers': 'layers', 'norm': 'layernorm', 'sized': True, 'pooling': 'pooler'}
_DINOV2 = {'layers': 'encoder.layer', 'norm': 'layernorm', **_IMAGENET}
_CLIP_LIKE = {
    'layers': 'encoder.layers',
    'patches': 'embeddings.patch_embedding',
    'positions': 'embeddings.position_embedding.weight',
    'cls_token': 'class_embedding',
    'sized': True,
}
_SIGLIP = {**_CLIP_LIKE, **_HALF, 'norm': 'post_layernorm', 'pooling': 'head', 'class_tokens': 0}
# By the `model_type` of the config. `original` is for weights whose authors do not resample as the
# library does:
# - DINOv2 adds 0.1 to the grid before taking the scale (github.com/facebookresearch/dinov2);
# - SigLIP draws straight lines between the positions, corners on corners
#   (github.com/google-research/big_vision, models/vit.py, resample_posemb).
# DeiT, ViTDet, DINOv2 with registers and SigLIP 2 agree with the library. CLIP's authors have only
# one size. `vit` has weights of several authors, and its config does not name them.
FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        # files of MAE, DINO and MSN have ImageNet's mean
        'vit': Family('ViTModel', **_PLAIN, **_HALF, alike_normalised=False),
        'deit': Family('DeiTModel', **_PLAIN, **_IMAGENET, class_tokens=2),
        'dinov2': Family(
            'Dinov2Model',
            **_DINOV2,
            original={'antialias': False, 'offset': 0.1},
            alike=('Dinov2Backbone',),
        ),
        'dinov2_with_registers': Family(
            'Dinov2WithRegistersModel',
            **_DINOV2,
            resampling={'antialias': True},
            alike=('Dinov2WithRegistersBackbone',),
        ),
        'dinov3_vit': Family(
            'DINOv3ViTModel',
            adapter=Dinov3,
            layers='model.layer',
            norm='norm',
            **_IMAGENET,
            alike_normalised=False,  # those of satellites have another mean
            patches='embeddings.patch_embeddings',
            positions=None,
            alike=('DINOv3ViTBackbone',),
        ),
        'siglip_vision_model': Family(
            'SiglipVisionModel',
            **_SIGLIP,
            original={'mode': 'bilinear', 'antialias': False, 'align_corners': True},
        ),
        'siglip2_vision_model': Family(
            'Siglip2VisionModel',
            **_SIGLIP,
            adapter=Siglip2,
            resampling={'mode': 'bilinear', 'antialias': True},
        ),
        'clip_vision_model': Family(
            'CLIPVisionModel',
            adapter=ClipVision,
            **_CLIP_LIKE,
            **_CLIP,
            norm=None,
            pooling='post_layernorm',
        ),
        'beit': Family(
            'BeitModel',
            adapter=Beit,
            layers='layers',
            norm='layernorm',
            pooling='pooler',
            **_HALF,
            alike_normalised=False,
        ),
        'vitdet': Family(
            'VitDetModel',
            adapter=VitDet,
            layers='encoder.layer',
            norm=None,
            **_IMAGENET,
            patches='embeddings.projection',
            class_tokens=0,
            image_size='pretrain_image_size',
            alike=('VitDetBackbone',),
        ),
        'swin': Family(
            'SwinModel',
            adapter=Swin,
            layers='encoder.layers',
            norm='layernorm',
            **_IMAGENET,
            class_tokens=0,
            sized=True,
        ),
    }
)
