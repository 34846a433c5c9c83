"""Pocket: the small model that ships with Texture Distiller, and how it was made."""

from pathlib import Path

WEIGHTS = Path(__file__).parent / "weights"
"""A folder in diffusers' layout: load(WEIGHTS, "pocket")."""
