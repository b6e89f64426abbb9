# ViT-L/14 of EVA-02; drop path and layer decay: EVA's repository, UPerNet on ADE20K with EVA-02-L
# Weights (1213 MB, mit): https://huggingface.co/timm/eva02_large_patch14_224.mim_m38m
#   hf download timm/eva02_large_patch14_224.mim_m38m model.safetensors --local-dir weights
_base_ = 'vit-b_eva02.py'
embed_dims = 1024
depth = 24
decay_rate = 0.9
backbone = dict(model_name='eva02_large_patch14_224.mim_m38m', drop_path_rate=0.2)
