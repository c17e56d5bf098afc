"""Losses of other papers, for comparison: none beat those one level up by more than the noise."""
