"""Using the embeddings: export, neighbours, clusters, the report page."""
