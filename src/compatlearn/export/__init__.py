"""Adapters for other runtimes."""
