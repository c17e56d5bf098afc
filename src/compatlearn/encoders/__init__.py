"""What makes vectors, of pictures and of texts: networks, services, functions; and the extraction of features."""
