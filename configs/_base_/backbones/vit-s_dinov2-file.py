# ViT-S of DINOv2 from a file, with patches of 16 pixels, for small recipes: DINOV2_SMALL names a
# file of weights in timm's, transformers' or any other project's keys.
#   layer decay: that of vit-s_dinov2.py
# Weights (88 MB, apache-2.0): https://huggingface.co/timm/vit_small_patch14_dinov2.lvd142m
#   hf download timm/vit_small_patch14_dinov2.lvd142m model.safetensors --local-dir weights
#   mv weights/model.safetensors weights/dinov2_vits14.safetensors
embed_dims = 384
depth = 12
decay_rate = 0.7
preprocess = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])
backbone = dict(
    type='ViTFeatBackbone',
    model_name='vit_small_patch14_dinov2.lvd142m',
    checkpoint='{{$DINOV2_SMALL:weights/dinov2_vits14.safetensors}}',
    patch_size=16,
)
