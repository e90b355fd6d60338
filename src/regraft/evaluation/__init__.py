"""How good a model is: metrics, intervals, significance, comparisons, diagnoses."""
