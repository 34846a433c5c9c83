"""Pocket: the small backbone that ships with Texture Distiller, and how it was made."""
