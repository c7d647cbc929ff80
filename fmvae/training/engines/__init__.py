"""Ways to take the steps of training, beside one after the other."""
