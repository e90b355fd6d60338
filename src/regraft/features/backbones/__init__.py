"""Backbones, one file a family; `catalog` finds them by name."""
