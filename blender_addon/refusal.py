"""What is found amiss in Blender, before anything is sent. No bpy."""

from __future__ import annotations

from . import wire


class Refusal(wire.WireError):
    """A WireError whose one sentence says itself what to do; the general remedy of its type would only blur it."""

    @property
    def sentence(self) -> str:
        return self.detail if self.detail.endswith((".", "!", "?")) else self.detail + "."
