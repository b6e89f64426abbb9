# Parameters, gradients and optimizer in shards on all GPUs, for ViT-L and up: one more entry of
# `_base_`, with `--launcher pytorch`.
#   source: Zhao et al., PyTorch FSDP, VLDB 2023
runner_type = 'FlexibleRunner'
strategy = dict(type='ViTFSDPStrategy')
