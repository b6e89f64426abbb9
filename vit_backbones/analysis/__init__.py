"""Trained runs looked at: curves, values by class, confusion, worst images."""
