"""Inference: an engine runs the frozen part, and is checked against PyTorch."""
