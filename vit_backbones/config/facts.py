"""Datasets, backbone and weights as a config names them; walks over its dicts."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from mmengine.config import Config

WEIGHTS = ('pretrained', 'checkpoint', 'checkpoint_path')  # arguments of a backbone


class Node(NamedTuple):
    """A dict in a config, its dotted place, and the scope in which its type is looked up."""

    place: str
    content: dict[str, Any]
    scope: str | None


@dataclass(frozen=True)
class Facts:
    """The data and the model of a merged config; the dicts are those of the config itself."""

    config: Config
    scope: str | None  # its `default_scope`
    datasets: dict[str, list[tuple[str, dict[str, Any]]]]  # by split, (place, dict) of each
    evaluators: dict[str, list[dict[str, Any]]]  # by split
    chain: list[dict[str, Any]]  # dicts of the model, its backbone, and the ViT in a `ViTAdapter`
    starts: list[str]  # local files that parts of the model start from, by an `init_cfg`
    load_from: str | None  # file that the whole model starts from
    builtin_data: dict[str, Any] | None  # how they are drawn, `None` with other data

    @classmethod
    def of(cls, config: Config, splits: Sequence[str] = ('train', 'val', 'test')) -> 'Facts':
        """Facts of a config; dataloaders and evaluators of other splits are left out."""
        loaders = {f'{split}_dataloader': config.get(f'{split}_dataloader') for split in splits}
        found = [list(dataset_configs(each or (), place)) for place, each in loaders.items()]
        model = config.get('model')
        model = model if isinstance(model, dict) else {}
        return cls(
            config=config,
            scope=config.get('default_scope'),
            datasets=dict(zip(splits, found, strict=True)),
            evaluators={split: listed(config.get(f'{split}_evaluator')) for split in splits},
            chain=model_chain(model),
            starts=[
                str(node.get('checkpoint'))
                for _, node, _ in nodes(model)
                if node.get('type') == 'Pretrained' and '://' not in str(node.get('checkpoint'))
            ],
            load_from=config.get('load_from'),
            builtin_data=config.get('builtin_data'),
        )

    @property
    def every_dataset(self) -> list[tuple[str, dict[str, Any]]]:
        """(place, dict) of the datasets of all splits."""
        return list(itertools.chain(*self.datasets.values()))

    @property
    def names_weights(self) -> bool:
        """Whether the backbone gets weights; `load_from` may be a file of any parts."""
        starts = [start for node in self.chain for start in listed(node.get('init_cfg'))]
        loaded = any(start.get('type') == 'Pretrained' for start in starts)
        return loaded or any(self.chain[-1].get(key) for key in WEIGHTS)

    @property
    def finds_unused(self) -> bool:
        """Whether DDP looks for parameters without a gradient."""
        wrapper = self.config.get('model_wrapper_cfg') or self.config
        return bool(wrapper.get('find_unused_parameters'))


def nodes(
    tree: Any,
    place: str = '',
    scope: str | None = None,
    *,
    closed: Callable[[Node, str], bool] = lambda node, key: False,
) -> Iterator[Node]:
    """The dicts of a config or a part of it; each comes before those inside it and may be changed.

    Args:
        tree: Config, dict or list to walk.
        place: Its dotted place.
        scope: Its scope; a config has its own.
        closed: Whether to leave out the value of a dict under a key.
    """
    if isinstance(tree, Config):
        tree, scope = tree._cfg_dict, tree.get('default_scope')
    items = enumerate(tree) if isinstance(tree, (list, tuple)) else ()
    if isinstance(tree, dict):
        scope = tree.get('_scope_', scope)
        node = Node(place, tree, scope)
        yield node
        items = [(key, each) for key, each in tree.items() if not closed(node, key)]
    for key, each in items:
        if isinstance(each, (dict, list, tuple)):
            yield from nodes(each, f'{place}.{key}'.lstrip('.'), scope, closed=closed)


def type_name(node: Mapping[str, Any]) -> str:
    """The bare name of a dict's `type`, which may be a class, or text with a scope."""
    kind = node.get('type')
    return getattr(kind, '__name__', str(kind)).split('.')[-1]


def dataset_configs(node: Any, place: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, dict) of each dataset below a dataloader's config, those in wrappers included."""
    if isinstance(node, (list, tuple)):
        for i, each in enumerate(node):
            yield from dataset_configs(each, f'{place}.{i}')
    elif isinstance(node, dict):
        inner = [key for key in ('dataset', 'datasets') if key in node]
        if not inner:
            yield place, node
        for key in inner:
            yield from dataset_configs(node[key], f'{place}.{key}')


def model_chain(model: dict[str, Any]) -> list[dict[str, Any]]:
    """Dicts of a model, its backbone, and the ViT in a `ViTAdapter`."""
    chain = [model]
    while isinstance(chain[-1].get('backbone'), dict):
        chain.append(chain[-1]['backbone'])
    return chain


def learns_masks(tree: Any) -> bool:
    """Whether a dataloader's pipeline loads the masks of objects."""
    return any(
        node.get('with_mask', 'PanopticAnnotations' in str(node.get('type')))  # its default
        for _, node, _ in nodes(tree)
    )


def listed(value: Any) -> list[Any]:
    """A list of one or several things, empty for none."""
    return list(value) if isinstance(value, (list, tuple)) else [value] if value else []
