"""Additions to MMEngine's training: hooks, learning rates by layer, sharding by block."""

from vit_backbones.training.amp import PortableAmpOptimWrapper
from vit_backbones.training.bootstrap_hook import BootstrapHook
from vit_backbones.training.curves_hook import CurvesHook
from vit_backbones.training.data_wait_hook import DataWaitHook
from vit_backbones.training.deferred_scalars import DeferredRuntimeInfoHook
from vit_backbones.training.feature_cache_hook import FeatureCacheHook
from vit_backbones.training.joint_layer_decay import EoMTOptimWrapperConstructor
from vit_backbones.training.kept_checkpoint_hook import KeptCheckpointHook
from vit_backbones.training.layer_decay import ViTLayerDecayConstructor
from vit_backbones.training.loss_watch_hook import LossWatchHook
from vit_backbones.training.non_finite_hook import NonFiniteHook
from vit_backbones.training.patience_hook import PatienceHook
from vit_backbones.training.pictures_hook import PredictionPicturesHook
from vit_backbones.training.progress_hook import ProgressHook
from vit_backbones.training.record_hook import RecordHook
from vit_backbones.training.sanity_check_hook import SanityCheckHook
from vit_backbones.training.sharding import ViTFSDPStrategy
from vit_backbones.training.skip_unreadable_hook import SkipUnreadableImagesHook
from vit_backbones.training.two_stage_warmup import TwoStageWarmupPolyLR
from vit_backbones.training.unmasked_best_hook import UnmaskedBestHook

__all__ = [
    'BootstrapHook',
    'CurvesHook',
    'DataWaitHook',
    'DeferredRuntimeInfoHook',
    'EoMTOptimWrapperConstructor',
    'FeatureCacheHook',
    'KeptCheckpointHook',
    'LossWatchHook',
    'NonFiniteHook',
    'PatienceHook',
    'PortableAmpOptimWrapper',
    'PredictionPicturesHook',
    'ProgressHook',
    'RecordHook',
    'SanityCheckHook',
    'SkipUnreadableImagesHook',
    'TwoStageWarmupPolyLR',
    'UnmaskedBestHook',
    'ViTFSDPStrategy',
    'ViTLayerDecayConstructor',
]
