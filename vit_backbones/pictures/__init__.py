"""Pictures of what a model sees: data samples, PCA of features, attention, contact sheets."""
