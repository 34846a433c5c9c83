"""Makes the weights: training data, objective, training, evaluation. The service imports nothing from here."""
