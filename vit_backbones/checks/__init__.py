"""What is looked at before a training: files, keys, and whether the parts of a model fit."""
