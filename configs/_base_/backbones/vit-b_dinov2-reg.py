# ViT-B of DINOv2 with registers and patches of 16 pixels; see vit-s_dinov2-reg.py
# Weights (346 MB, apache-2.0): https://huggingface.co/timm/vit_base_patch14_reg4_dinov2.lvd142m
#   hf download timm/vit_base_patch14_reg4_dinov2.lvd142m model.safetensors --local-dir weights
_base_ = 'vit-s_dinov2-reg.py'
embed_dims = 768
backbone = dict(model_name='vit_base_patch14_reg4_dinov2.lvd142m')
