"""What backbones cost and what they are worth: `tools/benchmark.py`."""
