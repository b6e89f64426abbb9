"""Models of MMDetection and MMSegmentation whose backbone also learns to classify its cells.

One module a toolbox, so that either is enough: a config names it in `custom_imports`.
"""
