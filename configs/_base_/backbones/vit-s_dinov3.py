# ViT-S/16 of DINOv3 (Siméoni et al., DINOv3, arXiv 2508.10104; weights under their own licence).
#   drop path and layer decay: those of DINOv2 of the same size, none were published to fine-tune it
# Weights (86 MB, dinov3-license): https://huggingface.co/timm/vit_small_patch16_dinov3.lvd1689m
#   hf download timm/vit_small_patch16_dinov3.lvd1689m model.safetensors --local-dir weights
# timm's copy asks for no login; Meta's own repositories do, and to accept the licence.
embed_dims = 384
depth = 12
decay_rate = 0.7
preprocess = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])
backbone = dict(
    type='ViTFeatBackbone',
    model_name='vit_small_patch16_dinov3.lvd1689m',
    pretrained=True,
    drop_path_rate=0.2,
)
