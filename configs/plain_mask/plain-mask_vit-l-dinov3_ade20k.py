# The plain mask head, semantic on ADE20K, on a frozen DINOv3 ViT-L.
#   source: github.com/tue-mps/pmt (MIT), image/configs/ade20k/semantic (batches of 16, 16 epochs)
#   result: not run; the authors report mIoU 58.5
#   command: in README.md, for 8 GPUs
_base_ = [
    '../_base_/backbones/vit-l_dinov3.py',
    '../_base_/models/plain_mask_semantic.py',
    '../_base_/datasets/eomt_ade20k.py',
    '../_base_/schedules/plain_mask.py',
]
custom_imports = dict(imports=['vit_backbones.mmseg'])
model = dict(
    data_preprocessor=dict(size=_base_.crop_size, **_base_.preprocess),
    backbone=dict(_base_.backbone, out_indices='even4', norm='all', frozen_stages=_base_.depth),
    decode_head=dict(
        in_channels=[_base_.embed_dims] * 4,
        num_classes=150,
        annealing=[(0.0, 3000 / (16 * _base_.epoch_iters))],
    ),
    test_cfg=_base_.windows,
)
train_cfg = dict(max_iters=16 * _base_.epoch_iters, val_interval=_base_.epoch_iters)
default_hooks = dict(checkpoint=dict(save_best='mIoU'))
