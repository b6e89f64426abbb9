"""Mixed precision on GPUs and CPUs."""

from typing import Any

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS

from vit_backbones.devices import amp_dtype

WRAPPER = 'PortableAmpOptimWrapper'
_DEVICES = ('cuda', 'cpu')


@OPTIM_WRAPPERS.register_module(name=WRAPPER)
class PortableAmpOptimWrapper(AmpOptimWrapper):
    """MMEngine's `AmpOptimWrapper` for GPUs and CPUs; a checkpoint of one resumes on the other.

    Args:
        loss_scale: As MMEngine's; dynamic by default in float16, whose small gradients would be
            zeros, and none in bfloat16, which has the range of float32.
        dtype: `'bfloat16'` or `'float16'`, the latter on GPUs only. By default bfloat16, on a GPU
            without it float16.
        use_fsdp: As MMEngine's.
        **kwargs: Those of `OptimWrapper`.

    Raises:
        ValueError: For float16 on a CPU.
    """

    def __init__(
        self,
        *,
        loss_scale: float | str | dict[str, Any] | None = None,
        dtype: str | torch.dtype | None = None,
        use_fsdp: bool = False,
        **kwargs: Any,
    ) -> None:
        dtype = str(dtype or amp_dtype()).removeprefix('torch.')
        scales = loss_scale is not None or dtype == 'float16'
        if torch.cuda.is_available():
            scale = 'dynamic' if loss_scale is None else loss_scale
            super().__init__(loss_scale=scale, dtype=dtype, use_fsdp=use_fsdp, **kwargs)
        else:
            _check_cpu(dtype)
            OptimWrapper.__init__(self, **kwargs)
            self.cast_dtype, scales = torch.bfloat16, False
        if not scales:
            self._scale_update_param, self.loss_scaler = None, torch.amp.GradScaler(enabled=False)

    def state_dict(self) -> dict[str, Any]:
        """The optimizer's state, with that of the loss's scale where there is one."""
        state = super().state_dict()
        return state if state['loss_scaler'] else {k: state[k] for k in state if k != 'loss_scaler'}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the optimizer's state, and a dynamic scale if this training has one too."""
        scale = state_dict.get('loss_scaler', {}).get('scale', 0)
        wanted = self.loss_scaler.is_enabled() and self._scale_update_param is None
        if not wanted or scale <= 1:  # 1 is the fixed one of bfloat16, nothing for float16
            state_dict = {k: v for k, v in state_dict.items() if k != 'loss_scaler'}
        super().load_state_dict(state_dict)


def use_amp(config: Config) -> None:
    """Let a config train in mixed precision.

    Raises:
        ValueError: On devices other than GPUs of CUDA and CPUs, for wrappers other than MMEngine's
            two, and for float16 on a CPU.
    """
    if (device := get_device()) not in _DEVICES:
        raise ValueError(
            f'amp=True is for CUDA GPUs and CPUs, and this training runs on {device!r}: train '
            f'without it'
        )
    wrapper = config.optim_wrapper
    if wrapper.get('type', 'OptimWrapper') not in ('OptimWrapper', 'AmpOptimWrapper', WRAPPER):
        raise ValueError(f'amp=True replaces OptimWrapper only, the config has {wrapper.type!r}')
    wrapper.type = WRAPPER
    wrapper.setdefault('dtype', amp_dtype())
    if not torch.cuda.is_available():
        _check_cpu(wrapper.dtype)
    is_sharded = str((config.get('strategy') or {}).get('type')).endswith('FSDPStrategy')
    if is_sharded and config.get('launcher', 'none') != 'none':
        wrapper.setdefault('use_fsdp', True)  # MMEngine sets it for its own wrapper only


def _check_cpu(dtype: Any) -> None:
    if str(dtype).removeprefix('torch.') != 'bfloat16':
        raise ValueError(
            f'optim_wrapper.dtype={dtype!r} needs a CUDA GPU, mixed precision on a CPU is '
            f'bfloat16: leave dtype out'
        )
