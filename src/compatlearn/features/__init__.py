"""Vectors at rest: features with their labels, ids and space, in our folder or in anyone's format."""
