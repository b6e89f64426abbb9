"""Teach a small ViT the features of a larger one on images without labels."""
