"""Building timm's models by name, and choosing the adapter that runs them.

Source: https://github.com/huggingface/pytorch-image-models (Apache-2.0).
"""

import contextlib
import difflib
import functools
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

import timm
from timm.layers import Format, PatchEmbed
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from vit_backbones.errors import counted, some
from vit_backbones.sources.base import Source, first_line, two, whole
from vit_backbones.sources.build_options import BuildOptions, Model
from vit_backbones.sources.hub import offline_if_unreachable
from vit_backbones.sources.published import no_weights
from vit_backbones.sources.timm_any import TimmAny
from vit_backbones.sources.timm_base import native_size
from vit_backbones.sources.timm_plain import TimmPlain


def build_timm(
    model_name: str, options: BuildOptions, *, more: Mapping[str, object] = MappingProxyType({})
) -> tuple[Source, nn.Module]:
    """Build by timm's name, e.g. `'vit_base_patch16_224.mae'`, without the classifier.

    A model that can take images of any size is built so; others are built for `img_size`. `more`
    are options of the architecture, such as its depth.
    """
    _check_name(model_name)
    # num_classes=0 drops the classifier; global_pool='' would add a final norm that models which
    # pool by average do not have
    arguments = {'num_classes': 0, 'drop_path_rate': options.drop_path_rate, **more}
    if options.in_channels != 3:
        arguments['in_chans'] = options.in_channels
    if options.patch_size is not None:
        arguments['patch_size'] = options.patch_size
    create = functools.partial(_create, model_name, options.pretrained, arguments)
    try:
        vit = create(dynamic_img_size=True)
        if not TimmPlain.suits(vit):
            return _fit(vit, create, options)
    except RuntimeError:  # of pretrained weights
        raise
    except Exception as error:  # each architecture refuses a size in its own way
        raise ValueError(
            f'timm model {model_name!r} cannot be used: {first_line(error)}'
        ) from error
    source = TimmPlain()
    if options.img_size is not None:
        source.set_input_size(vit, options.img_size, options.pos_interp)
    return source, vit


def _fit(
    vit: nn.Module, create: Callable[..., nn.Module], options: BuildOptions
) -> tuple[TimmAny, nn.Module]:
    """The model if it takes images of `img_size`, else a new one that is built for them."""
    img_size, in_channels = options.img_size, options.in_channels
    source = TimmAny(vit, native_size(vit), in_channels)
    fixed, patch = source.fixed_size(vit), options.patch_size
    if fixed and patch and (fixed[0] % patch[0] or fixed[1] % patch[1]):
        img_size = img_size or fixed
        size = whole(img_size, source.strides(vit))  # timm's own drops the last rows and columns
    elif img_size is None:
        return source, vit
    elif fixed in (None, size := source.padded(vit, img_size)):
        source.set_input_size(vit, img_size, options.pos_interp)
        return source, vit
    # a few architectures take squares only
    tries = [(size, None)] if size[0] == size[1] else [(size, None), ((max(size),) * 2, size)]
    reason = ''
    for built, fixed in tries:
        try:
            vit = create(img_size=built)
            return TimmAny(vit, built, in_channels, fixed), vit
        except (AssertionError, ValueError) as error:
            reason = first_line(error)
    rows, columns = source.fixed_size(vit)
    raise ValueError(f'it is of fixed size {rows}x{columns}, got img_size={img_size} ({reason})')


def wrap_timm(vit: nn.Module) -> tuple[TimmAny, nn.Module] | None:
    """The adapter of an existing timm model, and that model, for any size if it can; or `None`."""
    if not type(vit).__module__.startswith('timm.models.') or not hasattr(vit, 'feature_info'):
        return None
    patch_embed = getattr(vit, 'patch_embed', None)
    if type(vit) is VisionTransformer and type(patch_embed) is PatchEmbed:
        # as timm itself does for dynamic_img_size=True
        vit.dynamic_img_size, patch_embed.strict_img_size = True, False
        patch_embed.flatten, patch_embed.output_fmt = False, Format.NHWC
    if TimmPlain.suits(vit):
        return TimmPlain(), vit
    if not hasattr(vit, 'pretrained_cfg'):
        raise ValueError(
            f'{type(vit).__name__} of timm does not know its size: build it by timm.create_model'
        )
    built = getattr(vit, '_model_args', {})  # the arguments of create_model
    size = built.get('img_size') or getattr(patch_embed, 'img_size', None) or native_size(vit)
    in_channels = built.get('in_chans', vit.pretrained_cfg['input_size'][0])
    return TimmAny(vit, two(size), in_channels), vit


def list_timm() -> Iterator[Model]:
    """Each architecture once with each of its published weights, or once where it has none."""
    tagged = timm.list_pretrained()
    bare = set(timm.list_models()) - {name.split('.')[0] for name in tagged}
    for name in sorted([*tagged, *bare]):
        config = timm.get_pretrained_cfg(name)
        licence = config.license if name in tagged else None
        yield Model(name, 'timm', tuple(config.input_size[1:]), licence)


def close_names(model_name: str) -> list[str]:
    """Up to three of timm's architectures with similar names, of the same family if any is."""
    architecture, names = str(model_name).split('.')[0], timm.list_models()
    family = [name for name in names if name.split('_')[0] == architecture.split('_')[0]]
    return difflib.get_close_matches(architecture, family or names, n=3, cutoff=0.4)


def _create(
    model_name: str, pretrained: bool, options: Mapping[str, object], **more: object
) -> nn.Module:
    """timm's model; unknown options are dropped if their value would change nothing."""
    options = {**options, **more}
    try:
        with offline_if_unreachable(pretrained), _whole():
            return timm.create_model(model_name, pretrained=pretrained, **options)
    except TypeError as error:
        unknown = re.search(r"unexpected keyword argument.*?'(\w+)'", str(error))
        if unknown is None or unknown[1] not in options:
            raise
        name, rest = unknown[1], dict(options)
        value = rest.pop(name)
        if value not in (0, True):
            raise ValueError(f'it has no {name}, got {value!r}') from error
        return _create(model_name, pretrained, rest)
    except Exception as error:
        if not pretrained:
            raise
        raise no_weights(model_name, first_line(error)) from None


@contextlib.contextmanager
def _whole() -> Iterator[None]:
    """Refuse published weights that lack tensors; without a classifier timm only notes it."""
    logger, lacking = logging.getLogger('timm.models._builder'), []
    before, level = logger.level, logger.getEffectiveLevel()

    def note(record: logging.LogRecord) -> bool:
        lacking.extend(re.findall(r'^Missing keys \((.*?)\)', record.getMessage()))
        return record.levelno >= level

    logger.setLevel(logging.INFO)
    logger.addFilter(note)
    try:
        yield
    finally:
        logger.removeFilter(note)
        logger.setLevel(before)
    if lacking:
        names = lacking[0].split(', ')
        raise ValueError(f'they lack {counted(len(names), "tensor")}: {some(names)}')


def _check_name(model_name: str) -> None:
    architecture = str(model_name).split('.')[0]
    if ':' in architecture:
        return
    if not timm.is_model(architecture):
        raise ValueError(
            f'unknown model_name {model_name!r} for source timm; '
            f'closest: {", ".join(close_names(model_name)) or "none"}. timm.list_models() names all'
        )
    try:
        timm.models.get_pretrained_cfg(model_name)
    except RuntimeError as error:
        tags = ', '.join(timm.list_pretrained(f'{architecture}.*')) or 'none'
        raise ValueError(f'{first_line(error)} Those with weights: {tags}') from error
