"""Data preprocessors that tell `ViTFeatBackbone(mask_padding=True)` the sizes of images.

One module a library, to be named in `custom_imports`.
"""
