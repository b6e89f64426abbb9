"""Fine-tune every backbone with the recipe of one config and report its mIoU."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config

from vit_backbones.benchmark.results import of_work_dir
from vit_backbones.config.facts import listed
from vit_backbones.config.loading import load_config
from vit_backbones.files import write_whole
from vit_backbones.models.chosen import Choice, Loaded, load_backbone
from vit_backbones.own_data.rewriting import shorten_first_part
from vit_backbones.terminal import aloud
from vit_backbones.training.last_checkpoint import find_last_checkpoint
from vit_backbones.training.run import train

# Arguments of the config's backbone on which its head or its recipe relies
_OUTPUT = dict(out_indices=-1, norm='last', final_norm=None)
_KEPT = ('out_stride', 'cls_readout', 'img_size', 'drop_path_rate', 'with_cp', 'mask_padding')
_IN_STEPS = ('milestones', 'step_size', 'periods', 'total_steps')  # of schedules that do not scale


class Training(NamedTuple):
    """The text of a config with a backbone in it, ready to train.

    Its work dir `folder` is named after the backbone and all else that decides the result.
    """

    config: str
    folder: Path

    def reached(self, say: Callable[[str], None], command: str = '') -> dict[str, Any]:
        """Train as `tools/train.py` does, unless that is done; a stopped training goes on.

        `command` is the one that goes on, for the message after Ctrl-C.

        Gives `fine_tuned`, the mIoU of the last validation (0 to 1), and `fine_tune_minutes`.
        """
        if not (self.folder / 'record.json').exists():
            self._train(say, command)
        values = {row['metric']: row for row in of_work_dir(self.folder)}
        if 'mIoU' not in values:
            raise ValueError(
                f'{self.folder}/record.json has no mIoU: give val_evaluator a metric with mIoU'
            )
        return dict(fine_tuned=values['mIoU']['value'], fine_tune_minutes=values['mIoU']['minutes'])

    def _train(self, say: Callable[[str], None], command: str) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f'{self.folder.name}.py'
        write_whole(path, self.config.encode())
        resume = 'auto' if find_last_checkpoint(self.folder) else None
        with aloud():
            work_dir = str(self.folder)
            done = train(str(path), work_dir=work_dir, resume=resume, command=command, say=say)
            say(f'done: {done}')


def plan_training(
    data: str | Path, options: Sequence[str], choice: Choice, epochs: int, num_images: int
) -> Training:
    """Put a backbone in the place of a config's own, to train for `epochs` on `num_images`.

    The config still decides the head's layers and stride, the images and the learning rates.
    Normalisation and channels follow the backbone; schedules follow the number of epochs.

    Args:
        data: An mmseg config with a `ViTFeatBackbone` and epochs.
        options: `key=value` changes of it.
        choice: The backbone; its `layers` and `img_size` do not count.
    """
    config = _recipe(data, options)
    loaded = _put_in(config.model, choice)
    config.load_from, config.resume = None, False
    if choice.random_weights is not None:
        config.randomness = dict(config.get('randomness') or {}, seed=choice.random_weights)
    _normalise(config, loaded)
    _connect(config.model, loaded.backbone.out_channels, loaded.backbone.strides)
    _shorten(config, epochs, num_images)
    text = config.pretty_text
    name = f'{Path(loaded.name).name}-{loaded.fingerprint(text)[:16]}'
    return Training(text, Path('work_dirs/fine_tune', name))


def _recipe(data: str | Path, options: Sequence[str]) -> Config:
    """Load a config whose backbone another one can replace."""
    if Path(data).is_dir():
        raise ValueError(f'fine_tune= trains by the recipe of a config, and {data} is a folder')
    config = load_config(data, options)
    given = ((config.get('model') or {}).get('backbone') or {}).get('type')
    if given != 'ViTFeatBackbone':
        raise ValueError(
            f'fine_tune= puts each backbone in the place of a ViTFeatBackbone, and '
            f'model.backbone of {data} is {given!r}'
        )
    return config


def _put_in(model: Any, choice: Choice) -> Loaded:
    """Load a backbone with the outputs that a model takes, and put it into the model."""
    given = model.backbone
    kept = {key: given[key] for key in _KEPT if key in given}
    output = {key: given.get(key, usual) for key, usual in _OUTPUT.items()}
    loaded = load_backbone(
        choice._replace(layers=None, img_size=None), out_type='featmap', **output, **kept
    )
    model.backbone = {'type': 'ViTFeatBackbone'} | loaded.options | dict(frozen_stages=-1)
    for key in ('pretrained', 'init_cfg'):  # weights of the whole model, with its own backbone
        model.pop(key, None)
    return loaded


def _normalise(config: Config, loaded: Loaded) -> None:
    """Normalise images as the backbone expects them."""
    place = config.model.get('data_preprocessor') or config.get('data_preprocessor')
    if not place:
        raise ValueError('fine_tune= needs a data_preprocessor in the config')
    place.pop('rgb_to_bgr', None)
    place.update(mean=list(loaded.mean), std=list(loaded.std), bgr_to_rgb=not loaded.is_bgr)


def _connect(model: Any, channels: Sequence[int], strides: Sequence[Any]) -> None:
    """Give the neck, or else the heads, the channels and strides of the maps."""
    neck = model.get('neck')
    if neck:
        neck.in_channels = list(channels)
        if neck.type == 'SimpleFeaturePyramid':
            neck.in_strides = list(strides)
        return
    for name in ('decode_head', 'auxiliary_head'):
        for head in listed(model.get(name)):
            if isinstance(head.in_channels, int):
                head.in_channels = channels[head.get('in_index', -1)]
            else:
                picked = head.get('in_index', range(len(channels)))
                head.in_channels = [channels[index] for index in picked]
            if head.get('num_convs') == 0:  # its classifier reads the maps directly
                head.channels = head.in_channels


def _shorten(config: Config, epochs: int, num_images: int) -> None:
    """Train for so many epochs; the config's schedules shrink or stretch to that."""
    before = config.train_cfg.get('max_epochs')
    if before is None:
        raise ValueError('fine_tune= counts epochs, and train_cfg of the config counts iterations')
    config.train_cfg.max_epochs = epochs
    if config.train_cfg.get('val_begin', 1) > epochs:
        config.train_cfg.val_begin = epochs
    shorten_first_part(config, num_images)
    if epochs == before:
        return
    iteration = config.train_dataloader.batch_size / num_images  # in epochs
    for each in listed(config.get('param_scheduler')):
        _scale(each, epochs / before, iteration)


def _scale(schedule: Any, ratio: float, iteration: float) -> None:
    """Begin and end a schedule earlier or later; one of epochs may do so within an epoch."""
    found = [key for key in _IN_STEPS if key in schedule]
    if found:
        raise ValueError(
            f'fine_tune= cannot scale {found[0]} of {schedule.type}: give fine_tune= the '
            f"config's own max_epochs, or set train_cfg.max_epochs and the schedule to fit"
        )
    in_epochs = schedule.get('by_epoch', True)
    if in_epochs:
        schedule.update(by_epoch=True, convert_to_iter_based=True)
    time = float if in_epochs else int
    least = 1.5 * iteration if in_epochs else 1.5  # rounding leaves at least one iteration
    begin = schedule.get('begin', 0) * ratio
    schedule.begin = time(begin)
    if 'end' in schedule:
        schedule.end = time(max(schedule.end * ratio, begin + least))
    if schedule.get('T_max'):
        schedule.T_max = time(max(schedule.T_max * ratio, least))
