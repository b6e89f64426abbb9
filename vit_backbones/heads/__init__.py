"""Additions to the heads and models of mmdet and mmseg, a file for each idea.

`vit_backbones.mmdet` and `vit_backbones.mmseg` register them.
"""
