"""The ladder of ways to upgrade: every rung measured, its cost beside it, the cheapest good one recommended."""
