# The linear probe with its ViT trained along, at a tenth of the rate: the bar for other heads.
_base_ = 'linear_vit-ti_camvid.py'
model = dict(backbone=dict(frozen_stages=-1))
