# ViT-B/14 of DINOv2; drop path and layer decay: ViT-Adapter, Mask R-CNN on COCO with DINOv2-B
# Weights (346 MB, apache-2.0): https://huggingface.co/timm/vit_base_patch14_dinov2.lvd142m
#   hf download timm/vit_base_patch14_dinov2.lvd142m model.safetensors --local-dir weights
_base_ = 'vit-s_dinov2.py'
embed_dims = 768
backbone = dict(model_name='vit_base_patch14_dinov2.lvd142m', drop_path_rate=0.3)
