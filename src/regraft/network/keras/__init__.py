"""All that speaks Keras: its layers' names and order, what it computes otherwise, its weights files."""
