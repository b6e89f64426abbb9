"""Weights of classes in a config whose classes own data replace."""

from typing import Any

from mmengine.config import Config

from vit_backbones.config.facts import nodes

Weights = dict[str, Any]  # lists, or mmseg's files of them, by their dotted places


def class_weights(cfg: Config) -> Weights:
    """The weights in the losses of a config's model."""
    found = nodes(cfg.model, 'model')
    return {f'{each.place}.class_weight': each.content.get('class_weight') for each in found}


def settle_class_weights(cfg: Config, before: Weights, kept: Weights, number: int) -> list[str]:
    """Keep the weights at some places, and say which others are left out.

    Args:
        cfg: Of which own data replaced the weights; changed in place.
        before: The weights that it had.
        kept: Its keys are the places: explicit changes, or all where the classes are the same.
        number: Of classes.

    Returns:
        A line on the recipe's weights, if they weighed its classes.

    Raises:
        ValueError: If weights to keep are not `number`, without that of a background.
    """
    dropped = []
    for each in nodes(cfg.model, 'model'):
        key = f'{each.place}.class_weight'
        had, weights = before[key], each.content.get('class_weight')
        if not isinstance(had, str | list | tuple):  # one number is DETR's for all classes
            continue
        if key in kept:
            if not isinstance(had, str):
                _check_number(key, len(had), number)
            each.content['class_weight'] = had
        elif isinstance(had, str) or set(had[: len(had) - len(weights) + number]) != {1}:
            dropped.append(key)
    if not dropped:
        return []
    return [
        f"{', '.join(dropped)}: the recipe's weights are for its own classes, so yours weigh 1 "
        f'each; set {number} values there to change that'
    ]


def _check_number(key: str, given: int, number: int) -> None:
    with_background = 'loss_decode' not in key  # mmdet's rule
    if given not in (number, number + with_background):
        also = f', or {number + 1} with the background last' if with_background else ''
        raise ValueError(
            f'options={key}: has {given} values, and the data have {number} classes: give {number} '
            f'values{also}'
        )
