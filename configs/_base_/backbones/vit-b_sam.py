# The image encoder of SAM, a ViT-B/16 (Kirillov et al., Segment Anything, ICCV 2023), without neck.
# It has windows and relative positions of its own, so it does not go under configs/vitdet.
#   drop path and layer decay: those of ViTDet-B, which it is by its build
# Weights (359 MB, apache-2.0): https://huggingface.co/timm/samvit_base_patch16.sa1b
#   hf download timm/samvit_base_patch16.sa1b model.safetensors --local-dir weights
embed_dims = 768
depth = 12
decay_rate = 0.7
preprocess = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])
backbone = dict(
    type='ViTFeatBackbone',
    model_name='samvit_base_patch16.sa1b',
    pretrained=True,
    drop_path_rate=0.1,
)
