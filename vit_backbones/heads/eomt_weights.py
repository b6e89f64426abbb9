"""Whole published EoMT models as a start: `load_from` takes tue-mps' and transformers' files."""

import logging
from collections.abc import Sequence
from typing import Any

from mmengine.logging import print_log
from torch import Tensor, nn

import vit_backbones.hosts.safetensors_loading  # noqa: F401  (transformers' files)
from vit_backbones.checkpoints.eomt_keys import Published, published
from vit_backbones.errors import counted, some

Tensors = dict[str, Tensor]


class PublishedWeights(nn.Module):
    """Mixin for EoMT's models: files with the keys of tue-mps or transformers load as ours do.

    Its `backbone` is a `ViTFeatBackbone`, and its head a `panoptic_head` or `decode_head`. Files of
    differences to DINOv3's weights are added to those that the backbone has.
    """

    def _load_from_state_dict(self, state_dict: Tensors, prefix: str, *args: Any) -> None:
        found = None if prefix else published(state_dict)
        if found is not None:
            own = self._of_ours(found)
            state_dict.clear()
            state_dict.update(own)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _of_ours(self, found: Published) -> Tensors:
        """The tensors under the names of this model; a log line counts them."""
        place = 'panoptic_head' if hasattr(self, 'panoptic_head') else 'decode_head'
        vit = self.backbone.weights.of_published(
            self.backbone, found.vit, found.kind, is_delta=found.is_delta
        )
        head, lines = _fitting(found.head, getattr(self, place).state_dict())
        for line in lines:
            print_log(f'{found.kind}: {line}', logger='current', level=logging.WARNING)
        own = {f'backbone.{name}': tensor for name, tensor in vit.items()}
        own |= {f'{place}.{name}': tensor for name, tensor in head.items()}
        names = [name for name in self.state_dict() if not self._is_record(name)]
        loaded = sum(name in own for name in names)
        print_log(
            f'{type(self).__name__}: {found.kind} keys, {loaded} of {len(names)} tensors'
            f'{", added to those of the backbone" if found.is_delta else ""}; not needed: '
            f'{some(found.dropped)}',
            logger='current',
        )
        return own

    def _is_record(self, name: str) -> bool:
        return name.startswith('backbone.') and not name.startswith('backbone.vit.')


def _fitting(given: Tensors, own: Tensors) -> tuple[Tensors, list[str]]:
    """The head's tensors that fit, and a line for each kind that does not."""
    lines, fitting = [], dict(given)
    shapes = {name: tensor.shape for name, tensor in given.items()}
    kinds = (('cls_embed.weight', 'classes', 1), ('query_embed.weight', 'queries', 0))
    for name, what, extra in kinds:
        if name in own and shapes.get(name, own[name].shape)[0] != own[name].shape[0]:
            theirs, ours = (len(t[name]) - extra for t in (given, own))
            part = name.split('.')[0]
            fitting = {n: t for n, t in fitting.items() if not n.startswith(part)}
            lines.append(
                f'the file has {theirs} {what} and the model {ours}: {part} stays as it is'
            )
    if left := _misfits(fitting, own):
        lines.append(
            f'{counted(len(left), "tensor")} of the head do not fit and stay as they are: '
            f'{some(left)}'
        )
    return {name: t for name, t in fitting.items() if name not in left}, lines


def _misfits(given: Tensors, own: Tensors) -> Sequence[str]:
    return [n for n, t in given.items() if n not in own or t.shape != own[n].shape]
