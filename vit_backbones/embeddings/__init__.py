"""Uses of written embeddings: search, clusters, classifiers, pictures."""
