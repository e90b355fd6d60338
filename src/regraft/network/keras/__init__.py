"""All that speaks Keras: its layers' names and order, its padding, its weights files."""
