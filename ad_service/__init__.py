"""Texture Distiller's service: attention distillation on the artist's own device."""

__version__ = "0.2.0"
