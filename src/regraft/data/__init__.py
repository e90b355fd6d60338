"""Images and labels: where they are, what they are, which part each belongs to."""
