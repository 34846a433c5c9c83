"""The network that estimates maps from a picture: its weights, and how they were made."""

from pathlib import Path

WEIGHTS = Path(__file__).parent / "weights" / "maps.safetensors"
"""For core.materials.estimate.load_network."""
