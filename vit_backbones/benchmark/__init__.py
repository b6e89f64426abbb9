"""Costs and quality of backbones, for `tools/benchmark.py`."""
