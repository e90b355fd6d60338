"""What runs the trunk, one file an engine."""
