"""A model, or several, behind HTTP: requests in, predictions out, with limits on what anybody may ask for."""
