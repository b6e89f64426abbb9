"""Trained configs on images without labels: building the model, running it, writing results."""
