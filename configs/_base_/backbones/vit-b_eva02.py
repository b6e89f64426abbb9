# ViT-B/14 of EVA-02 (Fang et al., EVA-02: A Visual Representation for Neon Genesis, arXiv
# 2303.11331), before any fine-tuning. Its maps of stride 14 are resampled to 16.
#   drop path and layer decay: EVA's repository, UPerNet on ADE20K with EVA-02-B
# Weights (343 MB, mit): https://huggingface.co/timm/eva02_base_patch14_224.mim_in22k
#   hf download timm/eva02_base_patch14_224.mim_in22k model.safetensors --local-dir weights
embed_dims = 768
depth = 12
decay_rate = 0.85
preprocess = dict(
    mean=[122.7709383, 116.7460125, 104.09373615], std=[68.5005327, 66.6321579, 70.32316305]
)
backbone = dict(
    type='ViTFeatBackbone',
    model_name='eva02_base_patch14_224.mim_in22k',
    pretrained=True,
    drop_path_rate=0.15,
    out_stride=16,
)
