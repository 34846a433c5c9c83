"""The pipeline's constants: one options object for all stages of a job."""

from __future__ import annotations

from dataclasses import dataclass, field

from ad_service.core.pictures.lighting import LightingOptions
from ad_service.core.pictures.patch_statistics import PatchStatisticsOptions
from ad_service.core.quilting.patch_attention import PatchAttentionOptions
from ad_service.core.quilting.periodicity import PeriodicityOptions
from ad_service.core.quilting.quilt import QuiltOptions


@dataclass(frozen=True)
class PipelineOptions:
    """Constants of the pipeline that no artist sets; a test may pass its own.

    Attributes:
        cell: pixels along the side of the squares that a start is made of.
        large_swatch: pixels along the shorter side of a swatch above which a quilt's squares are twice as large.
            Beans enlarged to 2048 pixels: patch distance 0.0119 -> 0.0049.
        change_reach: cells at each side of a visible cut that a weak model may change; the rest stays as it is.
        quilt: costs of a quilt; the size of its pieces follows from the swatch.
        guided: a quilt whose pieces are so small that a content stays readable in them; larger ones are less readable.
            Its `guide_price` is that of a content weight of 1.
        shown_places: random places of a quilt that represent what it shows of the swatch.
        novel_patch: cells over which the choice between a quilt and new texture is smoothed.
        move_edge: whether a torus is rolled so that its edge lies on an ordinary border.
        lighting, periodicity, patch_statistics, patch_attention: of the stages with these names.
    """

    cell: int = 4
    large_swatch: int = 1024
    change_reach: int = 3
    quilt: QuiltOptions = field(default_factory=QuiltOptions)
    guided: QuiltOptions = field(
        default_factory=lambda: QuiltOptions(block=8, overlap=2, refinements=3.0, guide_price=8.0)
    )
    shown_places: int = 1 << 14
    novel_patch: int = 8
    move_edge: bool = True
    lighting: LightingOptions = field(default_factory=LightingOptions)
    periodicity: PeriodicityOptions = field(default_factory=PeriodicityOptions)
    patch_statistics: PatchStatisticsOptions = field(default_factory=PatchStatisticsOptions)
    patch_attention: PatchAttentionOptions = field(default_factory=PatchAttentionOptions)
