"""timm's plain Vision Transformers: `VisionTransformer` and `Eva` (EVA02, DINOv3, PE).

Source: https://github.com/huggingface/pytorch-image-models (Apache-2.0).
"""

import contextlib
import copy
import difflib
import math
import re

import timm
from timm.layers import PatchEmbed
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from vit_backbones.position import Grid, resample_positions
from vit_backbones.sources.base import Source
from vit_backbones.sources.hub import offline_if_unreachable
from vit_backbones.tokens import Tokens

PlainViT = VisionTransformer | Eva
_AFTER_THE_BLOCKS = ('norm', 'fc_norm', 'attn_pool', 'head')


class TimmViT(Source):
    """Adapter of timm's `VisionTransformer` and `Eva`."""

    def build(
        self,
        model_name: str,
        *,
        pretrained: bool,
        img_size: Grid | None,
        patch_size: Grid | None,
        in_channels: int,
        drop_path_rate: float,
        pos_interp: str,
    ) -> PlainViT:
        """Build by timm name, e.g. `'vit_base_patch16_224.mae'`, with dynamic input sizes.

        Raises:
            ValueError: For a name timm does not know (the closest ones are named) and for
                architectures other than the two plain families.
            RuntimeError: If the pretrained weights cannot be had (no network, no such weights).
        """
        _check_name(model_name)
        options: dict[str, object] = {'in_chans': in_channels, 'drop_path_rate': drop_path_rate}
        if patch_size is not None:
            options['patch_size'] = patch_size
        try:
            # num_classes=0 drops the classifier; global_pool stays as it is, since '' would
            # invent a final norm that models pooling by average do not have
            with offline_if_unreachable() if pretrained else contextlib.nullcontext():
                vit = timm.create_model(
                    model_name,
                    pretrained=pretrained,
                    num_classes=0,
                    dynamic_img_size=True,
                    **options,
                )
        except TypeError as error:
            raise ValueError(_NOT_PLAIN.format(model_name, error)) from error
        except Exception as error:
            if not pretrained:
                raise
            raise RuntimeError(
                f'no pretrained weights for {model_name!r}: {_first_line(error)}. Give a local '
                f'file with checkpoint=..., or pretrained=False for random weights'
            ) from None
        if type(vit) not in (VisionTransformer, Eva) or type(vit.patch_embed) is not PatchEmbed:
            kind = f'it is a {type(vit).__name__} with {type(vit.patch_embed).__name__}'
            raise ValueError(_NOT_PLAIN.format(model_name, kind))
        if img_size is not None:
            self.set_input_size(vit, img_size, pos_interp)
        return vit

    def tokens(
        self, vit: nn.Module, images: Tensor, indices: list[int], pos_interp: str
    ) -> list[Tokens]:
        """See `Source.tokens`; equal to timm's `forward_intermediates` for `pos_interp='timm'`."""
        ph, pw = self.patch_size(vit)
        grid = (images.shape[-2] // ph, images.shape[-1] // pw)
        num_prefix = self.num_prefix_tokens(vit)
        if pos_interp != 'timm' and vit.pos_embed is not None:
            vit = _with_positions(vit, self._table(vit, grid, pos_interp), grid)
        outputs = vit.forward_intermediates(
            images,
            indices=indices,
            # Eva zips with an undefined name when there are no prefix tokens (timm 1.0.31)
            return_prefix_tokens=num_prefix > 0,
            stop_early=True,
            output_fmt='NLC',
            intermediates_only=True,
        )
        if num_prefix == 0:
            outputs = [(patches, patches[:, :0]) for patches in outputs]
        return [Tokens(patches, prefix, grid) for patches, prefix in outputs]

    def depth(self, vit: nn.Module) -> int:
        """See `Source.depth`."""
        return len(vit.blocks)

    def embed_dims(self, vit: nn.Module) -> list[int]:
        """See `Source.embed_dims`."""
        return [vit.embed_dim] * len(vit.blocks)

    def patch_size(self, vit: nn.Module) -> Grid:
        """See `Source.patch_size`."""
        return vit.patch_embed.patch_size

    def grid(self, vit: nn.Module) -> Grid:
        """See `Source.grid`."""
        return vit.patch_embed.grid_size

    def num_prefix_tokens(self, vit: nn.Module) -> int:
        """See `Source.num_prefix_tokens`."""
        return vit.num_prefix_tokens

    def has_cls_token(self, vit: nn.Module) -> bool:
        """See `Source.has_cls_token`."""
        return vit.cls_token is not None

    def norm(self, vit: nn.Module) -> nn.Module | None:
        """See `Source.norm`; models that pool by average keep a `fc_norm` only, so `None`."""
        return None if isinstance(vit.norm, nn.Identity) else vit.norm

    def drop_cls_token(self, vit: nn.Module) -> None:
        """See `Source.drop_cls_token`."""
        if self.num_position_prefix(vit):
            vit.pos_embed = nn.Parameter(vit.pos_embed.detach()[:, 1:].clone())
        vit.cls_token = None
        vit.num_prefix_tokens -= 1
        for module in vit.modules():
            # rotary attention skips the prefix by a count of its own
            if module is not vit and hasattr(module, 'num_prefix_tokens'):
                module.num_prefix_tokens -= 1

    def prune(self, vit: nn.Module, last_block: int, *, keep_norm: bool) -> None:
        """See `Source.prune`."""
        vit.prune_intermediate_layers([last_block], prune_norm=not keep_norm, prune_head=True)

    def layer_of(self, name: str, depth: int) -> int:
        """See `Source.layer_of`."""
        if block := re.match(r'blocks\.(\d+)', name):
            return int(block[1]) + 1
        return depth + 1 if name.split('.')[0] in _AFTER_THE_BLOCKS else 0

    def position_name(self, vit: nn.Module) -> str | None:
        """See `Source.position_name`."""
        return None if vit.pos_embed is None else 'pos_embed'

    def num_position_prefix(self, vit: nn.Module) -> int:
        """See `Source.num_position_prefix`."""
        if vit.pos_embed is None or vit.no_embed_class:
            return 0
        return vit.num_prefix_tokens

    def interpolation(self, vit: nn.Module, pos_interp: str) -> dict[str, object]:
        """See `Source.interpolation`.

        `'original'`: bicubic without a low-pass filter; DINO and DINOv2 add 0.1 to the grid before
        taking the scale, DINOv2 with registers filters as timm does
        (https://github.com/facebookresearch/dinov2, Apache-2.0, `interpolate_pos_encoding`).
        """
        if pos_interp == 'timm' or vit.reg_token is not None:
            return {'antialias': True}
        name = '{architecture}.{tag}'.format_map({'tag': '', **vit.pretrained_cfg})
        dino = re.search(r'dinov2|\.dino$', name) is not None
        return {'antialias': False, 'offset': 0.1 if dino else 0.0}

    def patch_embed_name(self) -> str:
        """See `Source.patch_embed_name`."""
        return 'patch_embed.proj.weight'

    def set_input_size(self, vit: nn.Module, size: Grid, pos_interp: str) -> None:
        """See `Source.set_input_size`."""
        ph, pw = self.patch_size(vit)
        grid = (math.ceil(size[0] / ph), math.ceil(size[1] / pw))
        table = None if vit.pos_embed is None else self._table(vit, grid, pos_interp).detach()
        vit.set_input_size(img_size=(grid[0] * ph, grid[1] * pw))
        if table is not None:
            vit.pos_embed.data = table  # timm's own is antialiased

    def set_checkpointing(self, vit: nn.Module) -> None:
        """See `Source.set_checkpointing`; timm's own, non-reentrant."""
        vit.set_grad_checkpointing(True)

    def native_size(self, vit: nn.Module) -> Grid:
        """See `Source.native_size`."""
        return tuple(vit.pretrained_cfg['input_size'][-2:])

    def preprocess(self, vit: nn.Module) -> dict[str, object]:
        """See `Source.preprocess`; from timm's `pretrained_cfg`."""
        config = vit.pretrained_cfg
        return {
            'mean': [round(255 * value, 4) for value in config['mean']],
            'std': [round(255 * value, 4) for value in config['std']],
            'bgr_to_rgb': True,
        }

    def _table(self, vit: PlainViT, grid: Grid, pos_interp: str) -> Tensor:
        """The model's position table at another grid."""
        return resample_positions(
            vit.pos_embed,
            self.grid(vit),
            grid,
            num_prefix=self.num_position_prefix(vit),
            **self.interpolation(vit, pos_interp),
        )


_NOT_PLAIN = (
    'timm model {!r} cannot be used: {}. Only the plain ViTs of timm.models.vision_transformer and '
    'timm.models.eva are supported; see timm.list_models(module=...)'
)


def _first_line(error: Exception) -> str:
    return str(error).strip().split('\n')[0].rstrip('.') or type(error).__name__


def _check_name(model_name: str) -> None:
    architecture = str(model_name).split('.')[0]
    if ':' in architecture:
        return
    if timm.is_model(architecture):
        try:
            timm.models.get_pretrained_cfg(model_name)
        except RuntimeError as error:
            tags = ', '.join(timm.list_pretrained(f'{architecture}.*')) or 'none'
            raise ValueError(f'{_first_line(error)} Those with weights: {tags}') from error
        return
    modules = ('vision_transformer', 'deit', 'eva')
    plain = [name for module in modules for name in timm.list_models(module=module)]
    close = difflib.get_close_matches(architecture, plain, n=3, cutoff=0.4)
    raise ValueError(
        f'unknown model_name {model_name!r} for source timm; '
        f'closest: {", ".join(close) or "none"}. timm.list_models() names all'
    )


def _with_positions(vit: PlainViT, table: Tensor, grid: Grid) -> PlainViT:
    """A shallow copy of the model that holds another position table; the model is left as it is."""
    patch_embed = copy.copy(vit.patch_embed)
    patch_embed.grid_size = grid
    view = copy.copy(vit)
    view._parameters = {**vit._parameters, 'pos_embed': table}
    view._modules = {**vit._modules, 'patch_embed': patch_embed}
    return view
