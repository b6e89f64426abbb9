"""Plain ViTs by their sizes: Sapiens, and the architectures that mmpretrain names.

Sizes: https://github.com/open-mmlab/mmpretrain (Apache-2.0), `VisionTransformer`, and
https://github.com/facebookresearch/sapiens (Sapiens licence), a copy of that class.
timm's `VisionTransformer` computes the same: pre-norm blocks, one `qkv` matrix, GELU, LayerNorm
with an epsilon of 1e-6, and a final norm. mmpretrain normalises the mean over the patches
(`out_type='avg_featmap'`) once more; this package does not.
"""

from collections.abc import Iterator, Mapping
from functools import partial

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from vit_backbones.arguments import LARGEST, choice, flag, integer, positive
from vit_backbones.position import Grid, cells
from vit_backbones.sources.base import Source
from vit_backbones.sources.build_options import BuildOptions, Model
from vit_backbones.sources.published import no_weights
from vit_backbones.sources.timm_plain import TimmPlain

_SCALE = 'layer_scale_init_value'
_SIZES = ('embed_dims', 'num_layers', 'num_heads', 'feedforward_channels')
_ROWS = {
    ('s', 'small'): (768, 8, 8, 2304),
    ('b', 'base', 'deit-b', 'deit-base'): (768, 12, 12, 3072),
    ('l', 'large'): (1024, 24, 16, 4096),
    ('h', 'huge'): (1280, 32, 16, 5120),
    ('eva-g', 'eva-giant'): (1408, 40, 16, 6144),
    ('deit-t', 'deit-tiny'): (192, 12, 3, 768),
    ('deit-s', 'deit-small', 'dinov2-s', 'dinov2-small'): (384, 12, 6, 1536),
    ('dinov2-g', 'dinov2-giant'): (1536, 40, 24, 6144),
    ('sapiens_0.3b', '0.3b'): (1024, 24, 16, 4096),
    ('sapiens_0.6b', '0.6b'): (1280, 32, 16, 5120),
    ('sapiens_1b', '1b'): (1536, 40, 24, 6144),
    ('sapiens_2b', '2b'): (1920, 48, 32, 7680),
}
ARCHITECTURES: dict[str, dict[str, int]] = {
    name: dict(zip(_SIZES, row, strict=True)) for names, row in _ROWS.items() for name in names
}
_CONFIG = {
    'tag': '',
    'mean': IMAGENET_DEFAULT_MEAN,
    'std': IMAGENET_DEFAULT_STD,
    'first_conv': 'patch_embed.proj',
    'classifier': 'head',
}
SAPIENS = tuple(name for name in ARCHITECTURES if name.startswith('sapiens'))


def build_sapiens(
    model_name: str, options: BuildOptions, **spelling: object
) -> tuple[Source, nn.Module]:
    """Build `'sapiens_0.3b'`, `'_0.6b'`, `'_1b'` or `'_2b'`, for 1024x1024 as in pre-training.

    Their heads for pose, parts, depth and normals were trained on 1024x768 without a CLS token and
    with padded patches: `img_size=(1024, 768), with_cls_token=False, patch_cfg=dict(padding=2)`.
    """
    options = options._replace(img_size=options.img_size or (1024, 1024))
    return build_preset(choice('model_name', model_name, SAPIENS), options, **spelling)


def list_sapiens() -> Iterator[Model]:
    """Sapiens' four sizes."""
    return (Model(name, 'sapiens', (1024, 1024)) for name in SAPIENS)


def build_preset(
    arch: str | Mapping[str, int],
    options: BuildOptions,
    *,
    qkv_bias: bool = True,
    patch_cfg: Mapping[str, object] | None = None,
    layer_scale_init_value: float = 0.0,
) -> tuple[Source, nn.Module]:
    """Build a ViT of given sizes with a CLS token, by default for 224x224 in patches of 16.

    Args:
        arch: A name of `ARCHITECTURES`, or a dict with `embed_dims`, `num_layers`, `num_heads` and
            `feedforward_channels`.
        patch_cfg: mmpretrain's; only its `padding` is used.
        layer_scale_init_value: Initial LayerScale behind attention and MLP, 0 for none.
    """
    name, sizes = _sizes(arch)
    if options.pretrained:
        raise no_weights(name, 'they are published as files')
    patch = options.patch_size or (16, 16)
    padding = _padding({} if patch_cfg is None else patch_cfg, patch)
    zero = isinstance(layer_scale_init_value, float | int) and layer_scale_init_value == 0
    if not zero and positive(_SCALE, layer_scale_init_value) > LARGEST:
        raise ValueError(f'{_SCALE} must be at most {LARGEST}, got {layer_scale_init_value}')
    rows, columns = cells(options.img_size or (224, 224), patch)
    size = (rows * patch[0], columns * patch[1])
    vit = VisionTransformer(
        img_size=size,
        patch_size=patch,
        in_chans=options.in_channels,
        num_classes=0,
        embed_dim=sizes['embed_dims'],
        depth=sizes['num_layers'],
        num_heads=sizes['num_heads'],
        # timm rounds the product of ratio and width down
        mlp_ratio=(sizes['feedforward_channels'] + 0.5) / sizes['embed_dims'],
        qkv_bias=flag('qkv_bias', qkv_bias),
        init_values=layer_scale_init_value or None,
        drop_path_rate=options.drop_path_rate,
        dynamic_img_size=True,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
    )
    vit.patch_embed.proj.padding = padding
    own = {'architecture': name, 'input_size': (options.in_channels, *size)}
    vit.pretrained_cfg = vit.default_cfg = _CONFIG | own
    return (_Sapiens() if name.lower() in SAPIENS else TimmPlain()), vit


class _Sapiens(TimmPlain):
    """All of whose files expect ImageNet's mean."""

    def expected(self, vit: nn.Module, layout: str, *, named: bool = False) -> dict[str, object]:
        return self.preprocess(vit)


def _sizes(arch: str | Mapping[str, int]) -> tuple[str, Mapping[str, int]]:
    if isinstance(arch, str):
        return arch, ARCHITECTURES[choice('arch', arch.lower(), ARCHITECTURES)]
    if not isinstance(arch, Mapping) or set(_SIZES) != set(arch):
        raise ValueError(f'arch must be a name or a dict with {", ".join(_SIZES)}, got {arch!r}')
    sizes = {key: integer(f'arch[{key!r}]', arch[key], 1, LARGEST) for key in _SIZES}
    if sizes['embed_dims'] % sizes['num_heads']:
        raise ValueError(f'arch: num_heads must divide embed_dims, got {sizes}')
    return 'custom', sizes


def _padding(patch_cfg: Mapping[str, object], patch: Grid) -> Grid:
    """(vertical, horizontal) padding of the patch embedding, on either side."""
    if not isinstance(patch_cfg, Mapping):
        raise TypeError(f'patch_cfg takes a dict, as dict(padding=2), got {patch_cfg!r}')
    if unknown := sorted(map(str, set(patch_cfg) - {'padding'})):
        raise ValueError(
            f'patch_cfg: {", ".join(unknown)} cannot be honoured, only padding can; for '
            f'patches of another size give patch_size=...'
        )
    padding = patch_cfg.get('padding', 0)
    if padding == 'corner':  # right and bottom up to the patch: images are padded so anyway
        return (0, 0)
    sides = tuple(padding) if isinstance(padding, list | tuple) else (padding, padding)
    if isinstance(padding, str) or len(sides) != 2:
        raise ValueError(f"patch_cfg: padding must be an int, two or 'corner', got {padding!r}")
    what, why = 'patch_cfg: padding of a patch of', ', since more of it adds patches'
    return tuple(
        integer(f'{what} {step}', side, 0, (step - 1) // 2, why)
        for side, step in zip(sides, patch, strict=True)
    )
