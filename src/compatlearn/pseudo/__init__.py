"""Pseudo classifiers: old features in, one row per class out."""
