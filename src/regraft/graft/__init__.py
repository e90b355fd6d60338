"""What is trained: heads on features, the tail above a cut, and the one loop that trains them."""
