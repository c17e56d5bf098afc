"""Indexes that live in a store, one file each, by the store's own client."""
