"""A plan carried out on a live index: translate, backfill, search, status, and the way back."""
