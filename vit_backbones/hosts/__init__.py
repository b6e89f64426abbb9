"""What is missing, broken or slow in MMEngine, mmcv, mmdet and mmseg: stand-ins and mends."""
