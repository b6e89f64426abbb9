"""Stand-ins for parts of MMEngine, mmcv and mmdet that are missing or broken on today's PyTorch."""
