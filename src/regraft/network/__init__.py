"""Pretrained networks: the catalogue, their weights, the cut, and the frozen trunk."""

POOLED, INPUT = "pooled", "input"  # the two cuts that every network has: all of it is frozen, or nothing
