"""What is used afterwards: the model folder and prediction."""
