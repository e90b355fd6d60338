"""What in labelled images needs a second look: near-duplicates, likely label errors, outliers."""
