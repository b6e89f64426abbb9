"""Checks before a training, a module per subject; each yields findings.

`preflight` looks at the environment and at weight files, `keys` at a config, `wiring` at the parts
of a built model, `trial` at a training step, `data` at datasets; `recipe` and `report` order them.
"""
