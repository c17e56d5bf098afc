"""A proxy that speaks OpenAI's embeddings API: queries of the new model come out as vectors of the old space."""
