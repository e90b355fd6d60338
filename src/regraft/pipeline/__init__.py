"""The steps in their order, a file for each verb; the only room that knows the order."""
