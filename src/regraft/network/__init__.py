"""Pretrained networks: the catalogue, their weights, the cut, the frozen trunk, and the engines that run it."""
