# ViT-L of DINOv2 with registers and patches of 16 pixels; see vit-s_dinov2-reg.py
# Weights (1217 MB, apache-2.0): https://huggingface.co/timm/vit_large_patch14_reg4_dinov2.lvd142m
#   hf download timm/vit_large_patch14_reg4_dinov2.lvd142m model.safetensors --local-dir weights
_base_ = 'vit-s_dinov2-reg.py'
embed_dims = 1024
depth = 24
backbone = dict(model_name='vit_large_patch14_reg4_dinov2.lvd142m')
