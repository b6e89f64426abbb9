"""What is done with embeddings that were written: search, clusters, classifiers, pictures."""
