"""Losses of other papers, for comparison: none of them beat the losses one level up by more than the noise."""
