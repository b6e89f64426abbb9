"""Weights of classes in a config whose classes own data replace."""

from typing import Any

from mmengine.config import Config

from vit_backbones.config.facts import nodes

Weights = dict[str, Any]  # lists, or mmseg's files of them, by their dotted places


def class_weights(cfg: Config) -> Weights:
    """The weights in the losses of a config's model."""
    found = nodes(cfg.model, 'model')
    return {f'{each.place}.class_weight': each.content.get('class_weight') for each in found}


def settle_class_weights(cfg: Config, before: Weights, asked: Weights, number: int) -> list[str]:
    """Keep the weights that were asked for, and say which others are left out.

    Args:
        cfg: Of which own data replaced the weights; changed in place.
        before: The weights that it had.
        asked: Values of explicit changes.
        number: Of classes.

    Returns:
        A line on the recipe's weights, if they weighed its classes.

    Raises:
        ValueError: If other than `number` weights were asked for, without that of a background.
    """
    dropped = []
    for each in nodes(cfg.model, 'model'):
        key = f'{each.place}.class_weight'
        had, weights = before[key], each.content.get('class_weight')
        if key not in asked:
            if isinstance(had, str) or (
                had and set(had[: len(had) - len(weights) + number]) != {1}
            ):
                dropped.append(key)
        elif isinstance(had, list | tuple):
            if not number <= len(had) <= number + 1:
                raise ValueError(
                    f'options={key}: {len(had)} values are asked for, and own data have {number} '
                    f'classes: give {number} values, one more for a head that counts the background'
                )
            each.content['class_weight'] = had
    if not dropped:
        return []
    return [
        f"{', '.join(dropped)}: the recipe's weights are for its own classes, so yours weigh 1 "
        f'each; set {number} values there to change that'
    ]
