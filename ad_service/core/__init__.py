"""The algorithm: torch, einops, diffusers. No HTTP, no PIL, no files, no wire."""
