"""Pretrained networks: the catalogue, their weights, the cut, the frozen trunk, and the engines that run it."""

POOLED, INPUT = "pooled", "input"  # the two cuts that every network has: all of it is frozen, or nothing
