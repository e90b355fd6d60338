"""How good it is: metrics, intervals, curves and the report."""
