"""The one backbone class: arguments, pruning, forward. Knows no model library."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from mmengine.logging import print_log
from mmengine.registry import MODELS
from torch import Tensor, nn

from vit_backbones import arguments
from vit_backbones.arch import Build, choose_build
from vit_backbones.arguments import flag, sides
from vit_backbones.attention import Attention
from vit_backbones.checkpoints.fitting import GRID_KEY
from vit_backbones.hosts.image_sizes import ImageSizes
from vit_backbones.joint_blocks import JointBlocks, Queries
from vit_backbones.position import Grid
from vit_backbones.readout import JointTokens, Readout, Tokens
from vit_backbones.sources.build_options import BuildOptions
from vit_backbones.weights import Weights


def _of_readout(name: str) -> property:
    """A field of `readout` as an attribute, settable on a built model."""

    def put(self: 'ViTFeatBackbone', value: object) -> None:
        readout = replace(self.readout, **{name: value})
        readout.check_cls_token(self.model_name, self.has_cls_token)
        readout.check_parts(self.readout.pool, self.out_indices, self.depth, self._lost_norm)
        self._check_readout(readout)
        self.readout = readout

    return property(lambda self: getattr(self.readout, name), put)


@MODELS.register_module()
class ViTFeatBackbone(JointBlocks):
    """Any Vision Transformer as an OpenMMLab backbone.

    Takes images (B, in_channels, H, W) of any H and W and gives a tuple with one entry an index
    of `out_indices`, in the order asked for. Images are zero-padded right and bottom to the patch,
    so that maps have h = ceil(H / patch) rows and w = ceil(W / patch) columns.

    Examples:
        >>> import torch
        >>> from vit_backbones import ViTFeatBackbone
        >>> vit = ViTFeatBackbone('vit_tiny_patch16_224', out_indices='even4')
        >>> [tuple(f.shape) for f in vit(torch.rand(1, 3, 250, 333))]
        [(1, 192, 16, 21), (1, 192, 16, 21), (1, 192, 16, 21), (1, 192, 16, 21)]

    Args:
        model_name: Name in the source library, e.g. `'vit_base_patch16_224.mae'`; for an existing
            module use `from_module`.
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
        features_only: Only `True`, as configs of timm's backbones have it.
        allow_partial: Accept a checkpoint that lacks tensors, which stay random with a warning, or
            holds unknown ones.
        img_size: (H, W) for which the position table is built, the model's own by default. Other
            sizes stay welcome, except for models that take one size only.
        patch_size: Another patch size than the model's; weights are resampled.
        in_channels: Channels of the images: 3, or those that an existing module takes.
        out_indices: Blocks whose output is wanted, 0-based: an int, a sequence (negatives count
            from the end, no duplicates), `'last4'`, or `'even4'` (`i * depth // 4 - 1`, i = 1..4).
        out_type: `'featmap'` (B, C, h, w); `'cls'`, alias `'cls_token'`, (B, C); `'raw'`
            (B, P + h*w, C), prefix tokens first; `'avg_featmap'` (B, C). May be set later.
        with_cls_token: `None`: as the model has it. `False`: run without it (registers stay).
            `True`: the model must have one.
        cls_readout: Use of the CLS token in `'featmap'`: `'ignore'`, `'add'` to every patch, or
            `'concat'` behind every patch's channels (2C channels).
        pool: Embeddings (B, C') in place of `out_type`: `'cls'`, `'avg'`, `'max'`, `'cls+avg'` (2C
            channels), `'gem'` (generalised mean), `'attn'` (the model's own attention pooling) or
            `'model'` (the last block's embedding as the library's own head classifies it).
        norm: Outputs with final norm: the `'last'` block's (as in libraries), `'all'`, `'none'`.
        final_norm: mmpretrain's spelling of `norm`: `True` is `'last'`, `False` is `'none'`.
        out_stride: Resample maps bilinearly to ceil(H / s) x ceil(W / s) of the unpadded image.
        pos_interp: How learned positions are resampled to an image's grid: as `'timm'` does
            (bicubic, antialiased; transformers' models as that library does) or as the weights'
            `'original'` authors do, known by the keys of `checkpoint`, else by the model's name.
        drop_path_rate: Stochastic depth rate of the last block, growing linearly from 0.
        with_cp: Recompute blocks in the backward pass to save memory.
        frozen_stages: -1 nothing, 0 the embeddings, k also the first k blocks, depth everything.
            Frozen parts stay in eval mode.
        window_size: Side in patches of ViTDet's windows, in which blocks attend. Prefix tokens see
            everything and are seen from all. A window that covers the image changes nothing.
        window_block_indexes: Blocks that attend in windows; the others attend to everything.
        use_rel_pos: Give every block tables of decomposed relative positions, zero unless a
            checkpoint (ViTDet's) has them: for its window, or for the grid of `img_size`.
        mask_padding: Attend only to patches that hold pixels, sample positions on each image's own
            grid, and set padded pixels to 0: padding does not change the outputs in the cells of an
            image, while necks and heads still read the cells beyond. Needs `set_image_sizes`, or a
            data preprocessor that calls it: `SizedDetDataPreprocessor` (`vit_backbones.mmdet`) or
            `SizedSegDataPreProcessor` (`vit_backbones.mmseg`).
        lora: Train only low-rank updates, by peft: `dict(r=8, alpha=16, targets=('qkv',),
            dropout=0.0)`, targets being ends of the names of linear layers, or `in_proj` of
            PyTorch's attention. Checkpoints of a training keep them apart; `merge_lora()` adds
            them to their layers for good, as a model without `lora` does that loads such a file.
        init_cfg: As in MMEngine. `dict(type='Pretrained', checkpoint=..., prefix=...)` reads the
            file as `checkpoint` does, in `init_weights()`.

    Raises:
        ValueError: For a value out of range; the message names the allowed ones.
        FileNotFoundError: If `checkpoint` does not exist.
        RuntimeError: If `pretrained` weights cannot be had.

    Attributes:
        vit: The library's module, its parameters under the library's names.
        out_indices: Resolved, non-negative.
        depth: Blocks of the architecture, pruned ones included.
        masks_padding: Whether `set_image_sizes` has an effect.
    """

    pool, cls_readout = _of_readout('pool'), _of_readout('cls_readout')
    norm, out_stride = _of_readout('norm'), _of_readout('out_stride')

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
        checkpoint = arguments.respelled_checkpoint(checkpoint, checkpoint_path, features_only)
        shared = isinstance(model_name, nn.Module)
        arguments.check_weights(pretrained, checkpoint, init_cfg, shared)
        norm = arguments.respelled_norm(norm, final_norm)
        readout = Readout(out_type, pool, cls_readout, norm, out_stride)
        readout.check_form()
        spelling = dict(qkv_bias=qkv_bias, patch_cfg=patch_cfg)
        spelling['layer_scale_init_value'] = layer_scale_init_value
        name, build = choose_build(model_name, source, arch, spelling)
        channels = 3 if in_channels is None and not shared else in_channels
        options = BuildOptions.of(
            pretrained, img_size, patch_size, channels, drop_path_rate, pos_interp
        )
        super().__init__(*build(options), init_cfg)
        self.readout, self.pos_interp = readout, pos_interp
        self.model_name = name or type(self.vit).__name__
        self.in_channels = channels or self.source.in_channels(self.vit)
        self._set_attention(window_size, window_block_indexes, use_rel_pos, mask_padding)
        self._set_layers(out_indices, frozen_stages)
        own = dict(adapts=lora is not None, library=source)
        self.weights = Weights(self.source, self.model_name, self.vit, pool, allow_partial, **own)
        self._set_cls_token(with_cls_token)
        self._prune()
        self._set_checkpointing(with_cp)
        self.weights.start(self.vit, checkpoint, pos_interp, came=bool(pretrained) or shared)
        self._record_layout()
        self._set_learning(lora)
        self._check_frozen()
        self._size = options.img_size and self.padded_size(options.img_size)

    @classmethod
    def from_module(cls, vit: nn.Module, **options: object) -> 'ViTFeatBackbone':
        """Make a backbone of an existing model, which stays unchanged; the weights are shared.

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
        return self.readout.out_type

    @out_type.setter
    def out_type(self, value: str) -> None:
        if self.pool is not None:
            raise ValueError(f'out_type={value!r} with pool={self.pool!r}: embeddings have no form')
        _of_readout('out_type').fset(self, value)

    @property
    def out_channels(self) -> tuple[int, ...]:
        """Channels of each output."""
        if self.pool == 'model':
            return (self.source.embedding_dim,)
        return self.readout.channels([self.layer_channels[index] for index in self.out_indices])

    @property
    def strides(self) -> tuple[int | Grid, ...]:
        """Stride of each output map in pixels; (vertical, horizontal) for oblong patches."""
        return self.readout.strides([self.layer_strides[index] for index in self.out_indices])

    def forward(
        self, images: Tensor, queries: Queries | None = None
    ) -> tuple[Tensor, ...] | JointTokens:
        """Run the ViT.

        Args:
            images: (B, in_channels, H, W), normalised with `preprocess`.
            queries: What runs with them in the last blocks; see `joint`.

        Returns:
            One tensor an index, in the form of `pool` or else `out_type`.

        Raises:
            TypeError: If the images are no tensor.
            ValueError: If they are not 4-D, are empty, or have another number of channels or
                another type than the weights.
        """
        if queries is not None:
            return self._with_queries(images, queries)
        padded = self._padded(images)
        height, width = images.shape[-2:]
        indices = sorted(self.out_indices)
        with torch.set_grad_enabled(self.learns and torch.is_grad_enabled()):
            if self.pool == 'model':
                return (self.source.embedding(self.vit, padded, self.pos_interp),)
            own = self._image_sizes.of(images) if self.masks_padding else None
            sizes = {'sizes': own} if own else {}
            layers = self.source.tokens(self.vit, padded, indices, self.pos_interp, **sizes)
            by_index = dict(zip(indices, layers, strict=True))
            return tuple(
                self._output(by_index[index], index, (height, width), **sizes)
                for index in self.out_indices
            )

    def _output(self, tokens: Tokens, index: int, size: Grid, **sizes: list[Grid]) -> Tensor:
        if self.readout.norms(index, self.depth) and self.source.norm(self.vit) is not None:
            tokens = self.source.normed(self.vit, tokens)
        attend = partial(self.source.attention_pooled, self.vit)
        return self.readout.form(tokens, size, self.layer_strides[index], attend=attend, **sizes)

    def set_image_sizes(
        self, sizes: Sequence[Sequence[int]] | None, batch_shape: Grid | None = None
    ) -> None:
        """Set where the images of the next batches end, for `mask_padding`.

        Args:
            sizes: (H, W) of each image before padding right and below; `None` for whole images.
            batch_shape: (H, W) of the batch; any other is then refused.

        Raises:
            ValueError: If a size is below 1.
        """
        self._image_sizes.set(sizes, batch_shape)

    def set_input_size(self, size: Sequence[int]) -> None:
        """Resample the position table to (H, W) images for good, e.g. before an export.

        Not needed for running. Call it before an optimizer is built: the parameter changes shape.
        """
        size = sides('size', size)
        self.source.set_input_size(self.vit, size, self.pos_interp)
        self._size = self.padded_size(size)
        if hasattr(self, GRID_KEY):
            self.position_grid.copy_(torch.tensor(self.source.grid(self.vit)))
        self._freeze()

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
        attention = arguments.attention_options(*given)
        self.masks_padding = attention.masked
        self._image_sizes = ImageSizes(follows=attention.masked)
        if attention != Attention():
            self.source.set_attention(self.vit, attention)

    def _set_layers(self, out_indices: int | str | Sequence[int], frozen_stages: int) -> None:
        reason = f', because {self.model_name!r} has {self.depth} blocks'
        stages = arguments.integer('frozen_stages', frozen_stages, -1, self.depth, reason)
        self.frozen_stages = stages
        self.out_indices = arguments.resolve_out_indices(out_indices, self.depth)

    def _set_checkpointing(self, with_cp: bool) -> None:
        if flag('with_cp', with_cp):
            self.source.set_checkpointing(self.vit)

    def _set_cls_token(self, with_cls_token: bool | None) -> None:
        if with_cls_token not in (None, True, False):
            raise ValueError(f'with_cls_token must be None, True or False, got {with_cls_token!r}')
        if with_cls_token is False:
            self.source.drop_cls_token(self.vit)
        if with_cls_token and not self.has_cls_token:
            raise ValueError(f'with_cls_token=True, but {self.model_name!r} has no CLS token')
        self.readout.check_cls_token(self.model_name, self.has_cls_token)

    def _prune(self) -> None:
        """Remove what no output needs, so that every parameter gets a gradient."""
        ends = *self.out_indices, self.depth - 1
        self._widths = len({self.layer_channels[index] for index in ends})
        self._check_readout(self.readout)
        if self.pool == 'attn':
            self.source.keep_attention_pooling(self.vit)
        elif self.pool == 'model':
            self.source.keep_embedding(self.vit)
        has_norm = self.source.norm(self.vit) is not None
        normed = any(self.readout.norms(index, self.depth) for index in self.out_indices)
        if normed and not has_norm and self.pool != 'model':
            print_log(
                f'{self.model_name} has no final norm of its own: its outputs are not normed',
                logger='current',
            )
        keep_norm = normed and has_norm
        self._lost_norm = has_norm and not normed
        self.source.prune(self.vit, sorted(self.out_indices), keep_norm=keep_norm)
        if self.source.keeps_grid(self.vit):
            self.register_buffer(GRID_KEY, torch.tensor(self.source.grid(self.vit)))

    def _check_readout(self, readout: Readout) -> None:
        """Refuse a final norm, or the library's embedding, where it does not fit the outputs."""
        if readout.pool == 'model':
            readout.check_embedding(self.out_indices, self.depth, self.masks_padding)
        if readout.norm == 'all' and self._widths > 1 and self.source.norm(self.vit) is not None:
            raise ValueError(
                f"norm='all': the final norm of {self.model_name} fits its last stage only; use "
                f"norm='last' or 'none'"
            )
