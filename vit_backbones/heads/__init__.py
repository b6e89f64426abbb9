"""What this package adds to the heads and models of mmdet and mmseg, a file an idea.

`vit_backbones.mmdet` and `vit_backbones.mmseg` register them.
"""
