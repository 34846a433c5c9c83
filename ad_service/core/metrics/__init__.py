"""Quality of a texture in numbers. All functions take pictures (3, H, W) in [0, 1] on any device and are deterministic.

seams      continuity over the edges and over inner borders
borders    continuity over the border of an area of any shape
patches    patch distance and sharpness
agreement  how well a result follows its layout or its content
copies     verbatim copies and repetition
"""

from .agreement import Agreement, AgreementOptions, content_correlation, label_agreement
from .borders import AreaBorder, area_border
from .copies import CopyOptions, Repetition, copy_share, repetition
from .patches import halves_distance, patch_distance, sharpness
from .seams import AxisSeam, Edge, Seam, plainest_border, seam, seam_at

__all__ = [
    "Agreement",
    "AgreementOptions",
    "AreaBorder",
    "AxisSeam",
    "CopyOptions",
    "Edge",
    "Repetition",
    "Seam",
    "area_border",
    "content_correlation",
    "copy_share",
    "halves_distance",
    "label_agreement",
    "patch_distance",
    "plainest_border",
    "repetition",
    "seam",
    "seam_at",
    "sharpness",
]
