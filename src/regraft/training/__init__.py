"""Training on stored features: heads, the loop, fine-tuning, cross-validation."""
