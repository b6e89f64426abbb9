"""Heads of our own. Each names its toolbox's module: a config lists it in `custom_imports`."""
