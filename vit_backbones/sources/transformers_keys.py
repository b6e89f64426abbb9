"""Checkpoint keys of transformers 4.x and of models with heads, for the encoders of 5.x.

Source: https://github.com/huggingface/transformers (Apache-2.0).
"""

import copy
import re
from collections.abc import Collection, Mapping

from torch import Tensor
from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, rename_source_key

# Tensors of files that an encoder does not use: pooling, masked pre-training, constants
UNUSED = re.compile(r'^(pooler|head)\.|\.(mask_token|position_ids|relative_position_index)$')


def convert_keys(vit: PreTrainedModel, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors under the keys of an encoder, by the table with which transformers loads files.

    They may be those of a whole model; its other parts are left out.
    """
    rules = get_model_conversion_mapping(vit)
    splits = [rule for rule in rules if isinstance(rule, WeightConverter)]
    renames = [rule for rule in rules if not isinstance(rule, WeightConverter)]
    own, converted = vit.state_dict().keys(), {}
    for name, tensor in _of_the_encoder(tensors, vit.base_model_prefix, own).items():
        key, pattern = (name, None) if name in own else rename_source_key(name, renames, splits)
        if pattern is not None:  # one tensor that became several
            split = copy.deepcopy(next(rule for rule in splits if pattern in rule.source_patterns))
            split.add_tensor(key, name, pattern, tensor)
            converted |= split.convert(key, model=vit, config=vit.config)
        elif key in own or not UNUSED.search(key):
            converted[key] = tensor
    return converted


def _of_the_encoder(
    tensors: Mapping[str, Tensor], base: str, own: Collection[str]
) -> dict[str, Tensor]:
    """The encoder's part of a whole model's file, without its prefix."""
    prefixes = ('', f'{base}.', 'vision_model.', f'{base}.vision_model.')
    prefix = max(prefixes, key=lambda p: sum(p + name in tensors for name in own))
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
