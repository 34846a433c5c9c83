"""The algorithm: torch, einops, diffusers. No HTTP, no image files and no contract; only weights are read from disk."""
