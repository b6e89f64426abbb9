# Mask2Former on nuclei with the budget of the other small recipes: 10 epochs.
#   command: in README.md
_base_ = 'mask2former_vit-ti_nuclei.py'
train_cfg = dict(max_epochs=10, val_interval=2)
