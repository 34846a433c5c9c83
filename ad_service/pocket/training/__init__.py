"""Makes pocket's weights: training data, codec, denoiser, evaluation. The service imports nothing from here."""
