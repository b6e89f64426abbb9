# ViT-L/14 of DINOv2; drop path and layer decay: ViT-Adapter, Mask R-CNN on COCO with DINOv2-L
# Weights (1217 MB, apache-2.0): https://huggingface.co/timm/vit_large_patch14_dinov2.lvd142m
#   hf download timm/vit_large_patch14_dinov2.lvd142m model.safetensors --local-dir weights
_base_ = 'vit-s_dinov2.py'
embed_dims = 1024
depth = 24
decay_rate = 0.8
backbone = dict(model_name='vit_large_patch14_dinov2.lvd142m', drop_path_rate=0.4)
