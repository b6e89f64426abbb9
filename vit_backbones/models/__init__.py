"""Models ready to run: their list, a chosen backbone, a trained model."""
