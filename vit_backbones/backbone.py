"""The one backbone class: arguments, padding, freezing, output. Knows no model library."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from mmengine.logging import print_log
from mmengine.registry import MODELS
from torch import Tensor, nn

from vit_backbones.arch import Build, choose_build
from vit_backbones.arguments import (
    attention_options,
    check_weights,
    choice,
    flag,
    image_channels,
    integer,
    pair,
    rate,
    resolve_out_indices,
    respelled_checkpoint,
    respelled_norm,
)
from vit_backbones.attention import Attention
from vit_backbones.checkpoints.fitting import GRID_KEY
from vit_backbones.hosts.image_sizes import FOLLOWERS
from vit_backbones.lora import merge
from vit_backbones.position import Grid, resample_map
from vit_backbones.readout import FORMATTERS, POOLINGS, Tokens, cropped, featmap
from vit_backbones.sources.base import BuildOptions, PoolingError
from vit_backbones.weights import POSITION_INTERPOLATIONS, KeptWeights

CLS_READOUTS = ('ignore', 'add', 'concat')


@MODELS.register_module()
class ViTFeatBackbone(KeptWeights):
    """Any Vision Transformer as an OpenMMLab backbone.

    Takes images (B, in_channels, H, W) of any H and W and gives a tuple with one entry an index
    of `out_indices`, in the order asked for. Images are zero-padded right and bottom to the patch,
    so that maps have h = ceil(H / patch) rows and w = ceil(W / patch) columns.

    Example:
        >>> import torch
        >>> from vit_backbones import ViTFeatBackbone
        >>> vit = ViTFeatBackbone('vit_tiny_patch16_224', out_indices='even4')
        >>> [tuple(f.shape) for f in vit(torch.rand(1, 3, 250, 333))]
        [(1, 192, 16, 21), (1, 192, 16, 21), (1, 192, 16, 21), (1, 192, 16, 21)]

    Args:
        model_name: Name in the source library, e.g. `'vit_base_patch16_224.mae'`; an existing
            module is what `from_module` is for.
        source: Model library: `'timm'`, `'torchvision'`, `'transformers'` (which also takes a
            folder, a config or its dict for a name), `'lightly'` or `'sapiens'`; or a function
            that builds as those of `vit_backbones.sources` do.
        arch: mmpretrain's spelling of a plain ViT, in place of `model_name` and `source`: a name
            such as `'base'` or `'sapiens_1b'`, or a dict with `embed_dims`, `num_layers`,
            `num_heads` and `feedforward_channels`. `out_type` stays `'featmap'` unless given.
        qkv_bias: With `arch` or Sapiens: whether queries, keys and values have a bias (default).
        patch_cfg: With those: `dict(padding=2)` pads the patch embedding's convolution.
        layer_scale_init_value: With those: start of LayerScale, none by default.
        pretrained: Load the source's own published weights (needs network or its cache).
        checkpoint: Local `.pth`, `.safetensors` or `.npz` file in the library's keys; for timm's
            models also in another project's (`vit_backbones.checkpoints.layouts`). Positions,
            patch embedding and input channels are resampled to this model's.
        checkpoint_path: Other projects' spelling of `checkpoint`.
        features_only: `True`, as configs of timm's backbones have it; there is nothing else.
        allow_partial: Accept a checkpoint that matches under 95 % or holds unknown tensors.
        img_size: (H, W) for which the position table is built, the model's own by default; other
            sizes stay welcome, but for models that take one size only.
        patch_size: Another patch size than the model's; weights are resampled.
        in_channels: Channels of the images: 3, or those that an existing module takes.
        out_indices: Blocks whose output is wanted, 0-based: an int, a sequence (negatives count
            from the end, no duplicates), `'last4'`, or `'even4'` (`i * depth // 4 - 1`, i = 1..4).
        out_type: `'featmap'` (B, C, h, w); `'cls'`, alias `'cls_token'`, (B, C); `'raw'`
            (B, P + h*w, C), prefix tokens first; `'avg_featmap'` (B, C). May be set later.
        with_cls_token: `None`: as the model has it. `False`: run without it (registers stay).
            `True`: the model must have one.
        cls_readout: What `'featmap'` does with the CLS token: `'ignore'`, `'add'` to every patch,
            or `'concat'` behind every patch's channels (2C channels).
        pool: Embeddings (B, C') of each output in place of `out_type`: `'cls'`, `'avg'`, `'max'`,
            `'cls+avg'` (2C channels), `'gem'` (generalised mean), `'attn'`, the model's own
            attention pooling, or, of the last block alone, `'model'`: the embedding that the
            library's own head classifies, whichever way that is made.
        norm: Where the final norm is applied: to the `'last'` block's output as the library does,
            to `'all'` outputs, or to `'none'`.
        final_norm: mmpretrain's spelling of `norm`: `True` is `'last'`, `False` is `'none'`.
        out_stride: Resample maps bilinearly to exactly ceil(H / s) x ceil(W / s) of the unpadded
            image.
        pos_interp: How positions are resampled to the image's grid: `'timm'` (bicubic, antialiased)
            or `'original'` (as the weights' authors do, told by the keys of `checkpoint`, else by
            the model's name), where it has a learned table. For models of transformers `'timm'` is
            that library's own way; a log line tells where the two are one.
        drop_path_rate: Stochastic depth rate of the last block, growing linearly from 0.
        with_cp: Recompute blocks in the backward pass to save memory.
        frozen_stages: -1 nothing, 0 the embeddings, k also the first k blocks, depth everything.
            Frozen parts stay in eval mode.
        window_size: Side in patches of the windows in which blocks attend, as in ViTDet; prefix
            tokens are seen from every window and see everything. A window that covers the image
            is none.
        window_block_indexes: Blocks that do so; the others attend to everything.
        use_rel_pos: Give every block tables of decomposed relative positions, zero unless a
            checkpoint (ViTDet's) has them: for its window, or for the grid of `img_size`.
        mask_padding: Attend to no patch that is padding alone, sample positions on each image's
            own grid, and set padded pixels to 0: what lies in the padding of a batch, and how
            much, changes nothing. Needs a data preprocessor that tells the sizes of images
            (`SizedDetDataPreprocessor` of `vit_backbones.mmdet`, or
            `SizedSegDataPreProcessor` of `vit_backbones.mmseg`), or `set_image_sizes`.
        lora: Train low-rank updates alone, by peft: `dict(r=8, alpha=16, targets=('qkv',),
            dropout=0.0)`, targets being ends of the names of linear layers. Checkpoints of a
            training keep them apart; `merge_lora()` adds them to their layers for good.
        init_cfg: As in MMEngine. `dict(type='Pretrained', checkpoint=..., prefix=...)` reads the
            file as `checkpoint` does, in `init_weights()`.

    Raises:
        ValueError: For a value out of range; the message says what is allowed.
        FileNotFoundError: If `checkpoint` does not exist.
        RuntimeError: If `pretrained` weights cannot be had.

    Attributes:
        vit: The library's module, its parameters under the library's names.
        out_indices: Resolved, non-negative.
        out_channels: Channels of each output.
        strides: Stride of each output in pixels; (vertical, horizontal) for oblong patches.
        num_prefix_tokens: CLS and register tokens.
        depth: Blocks of the architecture, pruned ones included.
        load_report: What was loaded from a checkpoint, in one line; `None` without one.
        masks_padding: Whether `set_image_sizes` has an effect.
    """

    def __init__(
        self,
        model_name: str | nn.Module | None = None,
        *,
        source: str | Build = 'timm',
        arch: str | Mapping[str, int] | None = None,
        qkv_bias: bool | None = None,
        patch_cfg: Mapping[str, object] | None = None,
        layer_scale_init_value: float | None = None,
        pretrained: bool | None = False,
        checkpoint: str | Path | None = None,
        checkpoint_path: str | Path | None = None,
        features_only: bool = True,
        allow_partial: bool = False,
        img_size: int | Sequence[int] | None = None,
        patch_size: int | Sequence[int] | None = None,
        in_channels: int | None = None,
        out_indices: int | str | Sequence[int] = -1,
        out_type: str = 'featmap',
        with_cls_token: bool | None = None,
        cls_readout: str = 'ignore',
        pool: str | None = None,
        norm: str = 'last',
        final_norm: bool | None = None,
        out_stride: int | None = None,
        pos_interp: str = 'timm',
        drop_path_rate: float = 0.0,
        with_cp: bool = False,
        frozen_stages: int = -1,
        window_size: int | None = None,
        window_block_indexes: Sequence[int] = (),
        use_rel_pos: bool = False,
        mask_padding: bool = False,
        lora: Mapping[str, object] | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        checkpoint = respelled_checkpoint(checkpoint, checkpoint_path, features_only)
        shared = isinstance(model_name, nn.Module)
        check_weights(pretrained, checkpoint, init_cfg, shared)
        self.allow_partial = flag('allow_partial', allow_partial)
        self.cls_readout = choice('cls_readout', cls_readout, CLS_READOUTS)
        self.pos_interp = choice('pos_interp', pos_interp, POSITION_INTERPOLATIONS)
        self.norm = respelled_norm(norm, final_norm)
        self.out_stride = None if out_stride is None else integer('out_stride', out_stride, 1)
        spelling = qkv_bias, patch_cfg, layer_scale_init_value
        name, build = choose_build(model_name, source, arch, spelling)
        sizes = pair('img_size', img_size), pair('patch_size', patch_size)
        channels = image_channels(in_channels, shared)
        dropped = rate('drop_path_rate', drop_path_rate)
        options = BuildOptions(bool(pretrained), *sizes, channels, dropped, pos_interp)
        self.source, self.vit = build(options)
        self.in_channels = channels or self.source.in_channels(self.vit)
        self.model_name = name or type(self.vit).__name__
        self._set_attention(window_size, window_block_indexes, use_rel_pos, mask_padding)
        self._take(out_indices, out_type, pool, with_cls_token, frozen_stages)
        if flag('with_cp', with_cp):
            self.source.set_checkpointing(self.vit)
        self._start(checkpoint, bool(pretrained) or shared, lora)
        self._freeze()

    @classmethod
    def from_module(cls, vit: nn.Module, **options: object) -> 'ViTFeatBackbone':
        """Make a backbone of a model that exists already.

        The backbone shares the model's weights, each under a parameter of its own; the model itself
        is left unchanged, whatever is pruned or frozen here.

        Args:
            vit: A model of timm, torchvision, transformers (its encoders, its backbones, and whole
                models that hold one) or Lightly (whose masked ViTs hold one of the first two).
            **options: Those of `ViTFeatBackbone` that neither rebuild the model nor load weights:
                not `source`, `arch` with what goes with it, `pretrained`, `checkpoint`,
                `init_cfg`, `img_size`, `patch_size` and `drop_path_rate`.

        Raises:
            ValueError: If no source knows the model.
            TypeError: For an option that would rebuild it or load weights.
        """
        return cls(vit, **options)

    @property
    def out_type(self) -> str:
        """Form of the outputs; settable on a built model."""
        return self._out_type

    @out_type.setter
    def out_type(self, value: str) -> None:
        choice('out_type', value, FORMATTERS)
        if getattr(self, 'pool', None) is not None:
            raise ValueError(f'out_type={value!r} with pool={self.pool!r}: embeddings have no form')
        if value in ('cls', 'cls_token') and not self.has_cls_token:
            raise ValueError(
                f'out_type={value!r} needs a CLS token, and {self.model_name!r} has none here; '
                f"use out_type='avg_featmap'"
            )
        self._out_type = value

    @property
    def has_cls_token(self) -> bool:
        """Whether the model runs with a CLS token."""
        return self.source.has_cls_token(self.vit)

    @property
    def num_prefix_tokens(self) -> int:
        """Tokens in front of the patches: CLS and registers."""
        return self.source.num_prefix_tokens(self.vit)

    @property
    def layer_channels(self) -> list[int]:
        """Channels after each layer (block or stage), wanted or not."""
        return self.source.embed_dims(self.vit)

    @property
    def layer_strides(self) -> list[Grid]:
        """(vertical, horizontal) stride after each layer in pixels."""
        return self.source.strides(self.vit)

    @property
    def fixed_size(self) -> Grid | None:
        """(H, W) of the only images that the model takes, `None` if it takes any size."""
        return self.source.fixed_size(self.vit)

    @property
    def native_size(self) -> Grid:
        """(H, W) of the images for which the published weights are made."""
        return self.source.native_size(self.vit)

    @property
    def built_size(self) -> Grid:
        """(H, W) of the images whose positions the model holds without resampling."""
        if self.fixed_size is not None or not hasattr(self, GRID_KEY):
            return self.fixed_size or self.native_size
        grid, steps = self.source.grid(self.vit), self.layer_strides[0]
        return tuple(cells * step for cells, step in zip(grid, steps, strict=True))

    def padded_size(self, size: Grid) -> Grid:
        """(H, W) to which images of a size are padded: full patches, or the fixed size."""
        return self.source.padded(self.vit, size)

    @property
    def out_channels(self) -> tuple[int, ...]:
        """Channels of each output."""
        if self.pool == 'model':
            return (self.source.embedding_dim,)
        widens = self.pool is None and (self.out_type, self.cls_readout) == ('featmap', 'concat')
        factor = 2 if widens or self.pool == 'cls+avg' else 1
        dims = self.layer_channels
        return tuple(factor * dims[index] for index in self.out_indices)

    @property
    def strides(self) -> tuple[int | Grid, ...]:
        """Stride of each output map in pixels."""
        steps = self.layer_strides
        sides = ((1, 1) if self.out_stride else steps[index] for index in self.out_indices)
        return tuple(self.out_stride or (v if v == h else (v, h)) for v, h in sides)

    @property
    def preprocess(self) -> dict[str, object]:
        """`mean` and `std` (0-255) and `bgr_to_rgb` for a data preprocessor."""
        return self.source.preprocess(self.vit)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Run the ViT.

        Args:
            images: (B, in_channels, H, W), normalised with `preprocess`.

        Returns:
            One tensor an index, in the form of `pool` or else `out_type`.

        Raises:
            ValueError: If the images are not 4-D or have another number of channels.
        """
        if images.ndim != 4 or images.shape[1] != self.in_channels:
            raise ValueError(
                f'images must be (B, {self.in_channels}, H, W), got {tuple(images.shape)}'
            )
        height, width = images.shape[-2:]
        rows, columns = self.padded_size((height, width))
        fixed = self.fixed_size
        if fixed not in (None, (rows, columns)):
            raise ValueError(
                f'{self.model_name!r} is of fixed size, built for images of {fixed[0]}x{fixed[1]}, '
                f'got {height}x{width}: build it with img_size={(height, width)}'
            )
        padded = F.pad(images, (0, columns - width, 0, rows - height))
        indices = sorted(self.out_indices)
        with torch.set_grad_enabled(self.learns and torch.is_grad_enabled()):
            if self.pool == 'model':
                return (self.source.embedding(self.vit, padded, self.pos_interp),)
            layers = self.source.tokens(
                self.vit, padded, indices, self.pos_interp, **self._sizes(images)
            )
            by_index = dict(zip(indices, layers, strict=True))
            return tuple(
                self._output(self._normed(by_index[index], index), index, (height, width))
                for index in self.out_indices
            )

    def __setstate__(self, state: dict[str, object]) -> None:
        """Restore a copy, which is told the sizes of images as the original is."""
        super().__setstate__(state)
        if self.masks_padding:
            FOLLOWERS.add(self)

    def set_image_sizes(
        self, sizes: Sequence[Sequence[int]] | None, batch_shape: Grid | None = None
    ) -> None:
        """Tell where the images end in the batches that come, for `mask_padding`.

        Args:
            sizes: (H, W) of each image before the batch was padded right and below; `None` for
                whole images.
            batch_shape: (H, W) of the batch; any other is then refused.

        Raises:
            ValueError: If a size is below 1.
        """
        self._batch_shape = batch_shape
        self._image_sizes = None if sizes is None else [pair('size', size) for size in sizes]

    @property
    def learns(self) -> bool:
        """Whether anything in it does; adapters such as LoRA's do in frozen blocks.

        May be set by what makes one parameter of frozen and other ones, as FSDP does.
        """
        if self._learns is not None:
            return self._learns
        return self.frozen_stages < self.depth or any(p.requires_grad for p in self.parameters())

    @learns.setter
    def learns(self, value: bool) -> None:
        self._learns = value

    def train(self, mode: bool = True) -> 'ViTFeatBackbone':
        """Switch the mode; frozen parts stay in eval."""
        super().train(mode)
        for name, module in self.vit.named_modules():
            if self._is_frozen(name):
                module.eval()
        return self

    def set_input_size(self, size: Sequence[int]) -> None:
        """Resample the position table to (H, W) images for good, e.g. before an export.

        Not needed for running: forward resamples on the fly. Call it before an optimizer is built,
        since the parameter is a new one.
        """
        self.source.set_input_size(self.vit, pair('size', size), self.pos_interp)
        if hasattr(self, GRID_KEY):
            self.position_grid.copy_(torch.tensor(self.source.grid(self.vit)))
        self._freeze()

    def merge_lora(self) -> None:
        """Add the updates of `lora` to their layers for good, e.g. before an export."""
        merge(self.vit)

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Layer of a parameter, for layer-wise learning rate decay.

        Args:
            param_name: Name in the whole model, e.g. `'backbone.vit.blocks.0.norm1.weight'`.
            prefix: Where this backbone stands in it, e.g. `'backbone.'`.

        Returns:
            (layer, number of layers): 0 for embeddings, i + 1 for block (or stage) i, and the last
            layer for the final norm and for everything outside the prefix. Blocks behind the last
            of `out_indices` do not exist and do not count.
        """
        depth = max(self.out_indices) + 1
        inside = prefix + 'vit.'
        if not param_name.startswith(inside):
            return depth + 1, depth + 2
        layer = self.source.layer_of(param_name.removeprefix(inside), depth)
        return min(layer, depth + 1), depth + 2

    def _set_attention(self, *given: object) -> None:
        attention = attention_options(*given)
        self._image_sizes: list[Grid] | None = None
        self._batch_shape: Grid | None = None
        self.masks_padding = attention.masked
        if attention != Attention():
            self.source.set_attention(self.vit, attention)
        if attention.masked:
            FOLLOWERS.add(self)

    def _sizes(self, images: Tensor) -> dict[str, list[Grid]]:
        """What the source is told of the sizes of images."""
        sizes = self._image_sizes
        if not self.masks_padding or sizes is None:
            return {}
        shape = height, width = tuple(images.shape[-2:])
        too_large = any(h > height or w > width for h, w in sizes)
        other = self._batch_shape not in (None, shape)
        if len(sizes) != len(images) or too_large or other:
            raise ValueError(
                f'image sizes {sizes} were set for another batch than {tuple(images.shape)}: call '
                f'set_image_sizes with one (H, W) an image, or with None; windows that slide over '
                f'padded images cannot be masked'
            )
        return {'sizes': sizes}

    def _take(
        self,
        out_indices: int | str | Sequence[int],
        out_type: str,
        pool: str | None,
        with_cls_token: bool | None,
        frozen_stages: int,
    ) -> None:
        """Settle what is taken out of the whole model, and prune the rest."""
        self.depth = self.source.depth(self.vit)
        has_blocks = f', because {self.model_name!r} has {self.depth} blocks'
        self._learns: bool | None = None
        self.frozen_stages = integer('frozen_stages', frozen_stages, -1, self.depth, has_blocks)
        self.out_indices = resolve_out_indices(out_indices, self.depth)
        self._built_names = frozenset(self.vit.state_dict())
        self._choose_cls_token(with_cls_token)
        self.out_type = out_type
        self.pool = self._checked_pool(pool)
        self._prune()
        if self.source.keeps_grid(self.vit):
            self.register_buffer(GRID_KEY, torch.tensor(self.source.grid(self.vit)))

    def _choose_cls_token(self, with_cls_token: bool | None) -> None:
        if with_cls_token is False:
            self.source.drop_cls_token(self.vit)
        if with_cls_token not in (None, True, False):
            raise ValueError(f'with_cls_token must be None, True or False, got {with_cls_token!r}')
        if with_cls_token and not self.has_cls_token:
            raise ValueError(f'with_cls_token=True, but {self.model_name!r} has no CLS token')
        if self.cls_readout != 'ignore' and not self.has_cls_token:
            raise ValueError(
                f'cls_readout={self.cls_readout!r} needs a CLS token, and {self.model_name!r} has '
                f"none here; use cls_readout='ignore'"
            )

    def _checked_pool(self, pool: str | None) -> str | None:
        if pool is None:
            return None
        choice('pool', pool, [*POOLINGS, 'attn', 'model'])
        if (self.out_type, self.cls_readout, self.out_stride) != ('featmap', 'ignore', None):
            raise ValueError(
                f'pool={pool!r} gives embeddings in place of out_type={self.out_type!r}, '
                f'cls_readout={self.cls_readout!r} and out_stride={self.out_stride}: leave these '
                f'three at their defaults'
            )
        if pool == 'attn':
            self.source.keep_attention_pooling(self.vit)
        elif pool == 'model':
            self._keep_embedding()
        elif pool in ('cls', 'cls+avg') and not self.has_cls_token:
            raise PoolingError(
                f'pool={pool!r} needs a CLS token, and {self.model_name!r} has none here; use '
                f"pool='avg'"
            )
        return pool

    def _keep_embedding(self) -> None:
        """Let the model keep what its own embedding needs."""
        last = self.depth - 1
        if self.out_indices != (last,) or self.norm == 'none' or self.masks_padding:
            raise PoolingError(
                f"pool='model' is what the library makes of its last block, {last}, normed, and of "
                f'whole images; got out_indices={self.out_indices}, norm={self.norm!r}, '
                f"mask_padding={self.masks_padding}: use pool='avg'"
            )
        self.source.keep_embedding(self.vit)

    def _prune(self) -> None:
        """Remove what no output needs, so that every parameter gets a gradient."""
        last = self.depth - 1
        normed = self.norm == 'all' or (self.norm == 'last' and last in self.out_indices)
        if normed and self.source.norm(self.vit) is None and self.pool != 'model':
            print_log(
                f'{self.model_name} has no final norm of its own: its outputs are not normed',
                logger='current',
            )
        keep_norm = normed and self.source.norm(self.vit) is not None
        dims = {self.layer_channels[index] for index in (*self.out_indices, last)}
        if keep_norm and self.norm == 'all' and len(dims) > 1:
            raise ValueError(
                f"norm='all': the final norm of {self.model_name} fits its last stage only; use "
                f"norm='last' or 'none'"
            )
        self.source.prune(self.vit, sorted(self.out_indices), keep_norm=keep_norm)

    def _normed(self, tokens: Tokens, index: int) -> Tokens:
        wanted = self.norm == 'all' or (self.norm == 'last' and index == self.depth - 1)
        if not wanted or self.source.norm(self.vit) is None:
            return tokens
        return self.source.normed(self.vit, tokens)

    def _output(self, tokens: Tokens, index: int, size: Grid) -> Tensor:
        """What the caller gets; where cells are mixed, each image without its padding."""
        mixes = self.pool or self.out_stride or self.out_type == 'avg_featmap'
        if not (mixes and self.masks_padding and self._image_sizes):
            return self._formed(tokens, index, size)
        steps, outputs = self.layer_strides[index], []
        for at, own in enumerate(self._image_sizes):
            cells = tuple(math.ceil(side / step) for side, step in zip(own, steps, strict=True))
            one = Tokens(tokens.patches[at : at + 1], tokens.prefix[at : at + 1], tokens.grid)
            outputs.append(self._formed(cropped(one, cells), index, own))
        if outputs[0].ndim == 4:
            rows, columns = (math.ceil(side / self.out_stride) for side in size)
            outputs = [F.pad(m, (0, columns - m.shape[3], 0, rows - m.shape[2])) for m in outputs]
        return torch.cat(outputs)

    def _formed(self, tokens: Tokens, index: int, size: Grid) -> Tensor:
        if self.pool == 'attn':
            return self.source.attention_pooled(self.vit, tokens)
        if self.pool is not None:
            return POOLINGS[self.pool](tokens)
        if self.out_type != 'featmap':
            return FORMATTERS[self.out_type](tokens)
        maps = featmap(tokens, self.cls_readout)
        if self.out_stride is None:
            return maps
        target = tuple((side + self.out_stride - 1) // self.out_stride for side in size)
        down, across = self.layer_strides[index]
        return resample_map(maps, target, (self.out_stride / down, self.out_stride / across))

    def _is_frozen(self, name: str) -> bool:
        if '.lora_' in name:
            return False
        everything = self.frozen_stages == self.depth
        return everything or self.source.layer_of(name, self.depth) <= self.frozen_stages

    def _freeze(self) -> None:
        for name, parameter in self.vit.named_parameters():
            if self._is_frozen(name):
                parameter.requires_grad_(False)
        self.train(self.training)
