"""compatlearn: upgrade an embedding model without re-embedding the gallery."""
