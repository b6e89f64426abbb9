# ViT-S/14 of DINOv2 (Oquab et al., DINOv2: Learning Robust Visual Features without Supervision,
# TMLR 2024). Its maps of stride 14 are resampled to 16, where heads and necks want powers of two.
#   drop path and layer decay: ViT-Adapter, Mask R-CNN on COCO with DINOv2-S
# Weights (88 MB, apache-2.0): https://huggingface.co/timm/vit_small_patch14_dinov2.lvd142m
#   hf download timm/vit_small_patch14_dinov2.lvd142m model.safetensors --local-dir weights
embed_dims = 384
depth = 12
decay_rate = 0.7
preprocess = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])
backbone = dict(
    type='ViTFeatBackbone',
    model_name='vit_small_patch14_dinov2.lvd142m',
    pretrained=True,
    drop_path_rate=0.2,
    out_stride=16,
)
