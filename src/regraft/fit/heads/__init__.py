"""Heads, one file each: what is grafted on top of the features."""
