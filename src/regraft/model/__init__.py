"""The trained model: its folder and its predictions."""
