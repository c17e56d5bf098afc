"""What makes vectors: networks, functions, models that were trained here; and the extraction of features."""
