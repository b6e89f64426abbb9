"""Run trained models over images: test, predict, compare."""
