"""Both models stay frozen: maps from the new model's space to the old one's."""
