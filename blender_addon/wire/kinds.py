"""Job kinds: the pictures that go in and the parameters that control the result, each declared once.

Validation, command-line flags, panel properties and the README's table are all made from these declarations.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from .limits import MAX_PICTURE_SIDE, MAX_SEED
from .parameters import Choice, Integer, Number, Parameter, ParameterDocument, Text

Role = Literal["color", "labels", "mask", "data"]
"""What pixels mean: a color, a flat color a label, an amount (gray), or other numbers such as normals."""


@dataclass(frozen=True)
class Picture:
    """A picture that a job takes in: sent as a blob, named in `inputs` by its sha256.

    `needs` are the pictures without which this one is an error.
    """

    name: str
    role: Role
    help: str
    required: bool = False
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class JobKind:
    """A kind of job: its title in the panel, its pictures and its parameters."""

    name: str
    title: str
    help: str
    pictures: tuple[Picture, ...]
    parameters: tuple[Parameter, ...]

    def parameter(self, name: str) -> Parameter:
        return next(p for p in self.parameters if p.name == name)

    def picture(self, name: str) -> Picture:
        return next(p for p in self.pictures if p.name == name)

    def document(self) -> KindDocument:
        """The declaration as `/v1/capabilities` lists it."""
        return KindDocument(
            self.name, self.title, self.help, self.pictures, tuple(p.document() for p in self.parameters)
        )


@dataclass(frozen=True)
class KindDocument:
    """A job kind in `/v1/capabilities`."""

    name: str
    title: str
    help: str
    pictures: tuple[Picture, ...]
    parameters: tuple[ParameterDocument, ...]


def _size(name: str) -> Parameter:
    return Parameter(name, Integer(64, MAX_PICTURE_SIDE, 8), 512, f"{name.capitalize()} of the texture in pixels")


METHODS = Choice(("auto", "optimize", "sample"), aliases={"optimise": "optimize"})

COMMON = (
    Parameter("model", Text(), "pocket", "Model: pocket, which ships with the service, or the name of one of your own"),
    _size("width"),
    _size("height"),
    Parameter("tile", Choice(("none", "x", "y", "xy")), "xy", "Axes along which the texture repeats without a seam"),
    Parameter("seed", Integer(0, MAX_SEED), 0, "The same seed gives the same texture again on the same device"),
    Parameter(
        "scale", Number(0.25, 4.0), 1.0, "Size of the grain: 2 makes every stone twice as large as in the swatch"
    ),
    Parameter(
        "even_light",
        Number(0.0, 1.0),
        0.0,
        "How much of the swatch's uneven lighting is removed first: for a photograph lit from one side",
    ),
    Parameter("preset", Choice(("draft", "standard", "fine")), "standard", "Quality: how many steps the model takes"),
    Parameter(
        "detail",
        Choice(("auto", "off", "decoder", "pixels", "both")),
        "auto",
        "How the result is sharpened: a decoder fitted to the swatch, patch statistics in pixels, or both",
        advanced=True,
    ),
    Parameter(
        "method",
        METHODS,
        "auto",
        "Sampler: optimize the latents directly, or DDIM with guidance after each step",
        advanced=True,
    ),
    Parameter(
        "start",
        Choice(("auto", "noise", "fill", "quilt")),
        "auto",
        "What the canvas starts from: noise, random swatch pixels of the right region, or a quilt of swatch pieces",
        advanced=True,
    ),
    Parameter(
        "strength",
        Number(0.01, 1.0),
        0.0,
        "How far the start may change: the fraction of the noise schedule that runs (0: automatic)",
        automatic=0.0,
        advanced=True,
    ),
    Parameter("steps", Integer(1, 1000), 0, "Steps of the sampler (0: automatic)", automatic=0, advanced=True),
    Parameter(
        "iterations",
        Integer(1, 20),
        0,
        "Adam iterations in each step (0: automatic)",
        automatic=0,
        advanced=True,
    ),
    Parameter(
        "learning_rate",
        Number(0.0001, 1.0),
        0.0,
        "Learning rate of Adam on the latents (0: automatic)",
        automatic=0.0,
        advanced=True,
    ),
    Parameter(
        "content_weight",
        Number(0.0, 10.0),
        -1.0,
        "Weight of the content loss, which keeps the structure of the start or the content image (-1: automatic)",
        automatic=-1.0,
        advanced=True,
    ),
    Parameter(
        "precision",
        Choice(("auto", "fp32", "bf16", "fp16")),
        "auto",
        "Number format of the network; latents are always 32 bit",
        advanced=True,
    ),
)

SWATCH = Picture(
    "swatch", "color", "The exemplar image that the texture is synthesized from: a photograph, a crop or a scan", True
)
CONTENT = Picture("content", "color", "Image to restyle: any picture, or a texture that already tiles", True)

SYNTHESIZE = JobKind(
    "synthesize",
    "Synthesize",
    "A new, larger, tileable texture from a swatch, arranged by a painted layout if there is one",
    (
        SWATCH,
        Picture(
            "regions", "labels", "Label map over the swatch: one flat color for each of its parts", needs=("layout",)
        ),
        Picture(
            "layout", "labels", "Label map over the result, painted in the colors of the regions", needs=("regions",)
        ),
    ),
    COMMON,
)


def _for_restyle(parameter: Parameter) -> Parameter:
    """A common parameter as restyling has it: the content's size by default, and the preview method."""
    if isinstance(parameter.value, Integer) and parameter.name in ("width", "height"):
        help = f"{parameter.help} (0: the content's, rounded to a multiple of {parameter.value.multiple})"
        return replace(parameter, default=0, automatic=0, help=help)
    if parameter.name == "method":
        help = "Sampler, as for a texture; preview is a single pass without a loss that keeps the content's fine shapes"
        return replace(parameter, value=replace(METHODS, choices=(*METHODS.choices, "preview")), help=help)
    return parameter


RESTYLE = JobKind(
    "restyle",
    "Restyle",
    "An image redrawn in the material of a swatch; what tiles still tiles",
    (CONTENT, SWATCH),
    tuple(_for_restyle(p) for p in COMMON if p.name != "start"),
)

KINDS: dict[str, JobKind] = {kind.name: kind for kind in (SYNTHESIZE, RESTYLE)}
