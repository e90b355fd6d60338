"""Faster ways to compute what PyTorch computes, where its own are slow."""
