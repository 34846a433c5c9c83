"""Job kinds: the pictures that go in and the parameters that control the result, each declared once.

Validation, command-line flags, panel properties and the README's table are all made from these declarations.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from .limits import MAX_PICTURE_SIDE, MAX_SEED, MIN_PICTURE_SIDE
from .maps import map_name, map_type
from .parameters import Choice, Corners, Crop, Integer, Number, Parameter, ParameterDocument, Text

Role = Literal["color", "labels", "mask", "data", "normal"]
"""What pixels mean: a color, a flat color a label, an amount (gray), other numbers, or normals."""


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
    """A kind of job: its title in the panel, its pictures and its parameters.

    `maps_over` is the picture whose other maps the job takes as well, see `maps`; empty if it takes none.
    """

    name: str
    title: str
    help: str
    pictures: tuple[Picture, ...]
    parameters: tuple[Parameter, ...]
    maps_over: str = ""

    def parameter(self, name: str) -> Parameter:
        return next(p for p in self.parameters if p.name == name)

    def picture(self, name: str) -> Picture:
        """The declaration of an input; raises KeyError if the job does not take it."""
        if self.maps_over and (of_map := map_name(name)):
            kind = map_type(of_map)
            return Picture(name, kind.role, kind.help, needs=(self.maps_over,))
        return {p.name: p for p in self.pictures}[name]

    def document(self) -> KindDocument:
        """The declaration as `/v1/capabilities` lists it."""
        return KindDocument(
            self.name,
            self.title,
            self.help,
            self.pictures,
            tuple(p.document() for p in self.parameters),
            self.maps_over,
        )


@dataclass(frozen=True)
class KindDocument:
    """A job kind in `/v1/capabilities`."""

    name: str
    title: str
    help: str
    pictures: tuple[Picture, ...]
    parameters: tuple[ParameterDocument, ...]
    maps_over: str = ""


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
        "crop",
        Crop(MIN_PICTURE_SIDE, MAX_PICTURE_SIDE),
        "",
        "Rectangle of the swatch that is used: left,top,width,height in pixels (empty: the whole picture)",
        automatic="",
    ),
    Parameter(
        "corners",
        Corners(MAX_PICTURE_SIDE),
        "",
        "Corners of a rectangle in the scene that was photographed from the side, which is straightened: top left, "
        "top right, bottom right, bottom left as x,y in pixels of the swatch (empty: not straightened). "
        "Not together with a crop",
        automatic="",
    ),
    Parameter(
        "lens",
        Number(-0.5, 0.5),
        0.0,
        "Distortion of the lens that is removed: below 0 if straight lines bulge outward, above 0 if inward",
        advanced=True,
    ),
    Parameter(
        "real_width",
        Number(0.001, 1000.0),
        0.0,
        "Width in meters of what the used part of the swatch shows (0: unknown)",
        automatic=0.0,
    ),
    Parameter(
        "scale",
        Number(0.01, 4.0),
        0.0,
        "Size of the details: 2 makes every stone twice as large as in the swatch (0: fit, so that about a dozen "
        "stones are on the texture)",
        automatic=0.0,
    ),
    Parameter(
        "even_light",
        Number(0.0, 1.0),
        0.0,
        "How much the brightness is evened out before the texture is made, for a photograph lit from one side",
    ),
    Parameter(
        "preset",
        Choice(("draft", "standard", "fine")),
        "standard",
        "Draft takes half as many steps as standard, fine twice as many",
    ),
    Parameter(
        "detail",
        Choice(("auto", "off", "decoder", "pixels", "both")),
        "auto",
        "Restores fine detail in the model's decoder, in the pixels, or both",
        advanced=True,
    ),
    Parameter(
        "method",
        METHODS,
        "auto",
        "How the texture is computed: optimization of the latents, or DDIM sampling with guidance",
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
        "novelty",
        Number(0.0, 1.0),
        0.0,
        "How much of a quilt is replaced by new texture that is not copied in pieces: 0 keeps the quilt, 1 keeps "
        "nothing of it",
    ),
    Parameter(
        "strength",
        Number(0.01, 1.0),
        0.0,
        "How much of the start may change: low values keep it, 1 redraws it completely (0: automatic)",
        automatic=0.0,
        advanced=True,
    ),
    Parameter("steps", Integer(1, 1000), 0, "Steps of the sampler (0: automatic)", automatic=0, advanced=True),
    Parameter(
        "iterations",
        Integer(1, 20),
        0,
        "Optimization passes in each step; more are slower (0: automatic)",
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
        "How strongly the shapes of the layout or of the image to restyle are kept (-1: automatic)",
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

NORMAL_FORMAT = Parameter(
    "normal_format",
    Choice(("auto", "opengl", "directx")),
    "auto",
    "Convention of the normal map: OpenGL (green is up), DirectX (green is down), or found out. Results are OpenGL",
    advanced=True,
)
NORMAL_STRENGTH = Parameter(
    "normal_strength", Number(0.0, 4.0), 1.0, "Steepness of estimated normals: 2 doubles the slopes", advanced=True
)
MAP_PARAMETERS = (
    Parameter(
        "estimate_maps",
        Choice(("off", "missing")),
        "off",
        "Estimate the normal, roughness and height maps that are not given, from the color",
    ),
    NORMAL_FORMAT,
    NORMAL_STRENGTH,
)

SWATCH = Picture(
    "swatch",
    "color",
    "Image of the material to synthesize from: a photograph, a crop or a scan",
    True,
)
CONTENT = Picture("content", "color", "Image to restyle: any picture, or a texture that already tiles", True)

SYNTHESIZE = JobKind(
    "synthesize",
    "Synthesize",
    "Make a new tileable texture of any size from a swatch, optionally arranged by a painted layout",
    (
        SWATCH,
        Picture(
            "regions", "labels", "Map of the swatch: each of its materials painted in one flat color", needs=("layout",)
        ),
        Picture(
            "layout",
            "labels",
            "Map of the texture: each material painted where it should be, in its color",
            needs=("regions",),
        ),
    ),
    (*COMMON, *MAP_PARAMETERS),
    maps_over="swatch",
)


def _for_restyle(parameter: Parameter) -> Parameter:
    """A common parameter as restyling has it: the content's size by default, and the preview method."""
    if isinstance(parameter.value, Integer) and parameter.name in ("width", "height"):
        help = f"{parameter.help} (0: the content's, rounded to a multiple of {parameter.value.multiple})"
        return replace(parameter, default=0, automatic=0, help=help)
    if parameter.name == "method":
        help = "As for a texture. Preview is fast, keeps fine shapes, and takes only colors and grain from the swatch"
        return replace(parameter, value=replace(METHODS, choices=(*METHODS.choices, "preview")), help=help)
    return parameter


RESTYLE = JobKind(
    "restyle",
    "Restyle",
    "Redraw an image in the material of a swatch. A tileable image stays tileable",
    (CONTENT, SWATCH),
    (*(_for_restyle(p) for p in COMMON if p.name not in ("start", "novelty")), *MAP_PARAMETERS),
    maps_over="swatch",
)

_NOT_FROM_WORDS = ("method", "start", "novelty", "strength", "content_weight")
"""Common parameters that `generate` has not: it always samples from noise, and keeps no structure."""

GENERATE = JobKind(
    "generate",
    "Generate",
    "Make a tileable texture from words with a Stable Diffusion model, in the material of a swatch if there is one",
    (
        replace(SWATCH, required=False),
        Picture("layout", "labels", "Map of the texture: each region prompt painted where it should be, in its color"),
    ),
    (
        Parameter("prompt", Text(), "", "What to make, in English words", automatic=""),
        Parameter("negative_prompt", Text(), "", "What to avoid, in English words", automatic=""),
        Parameter(
            "region_prompts",
            Text(),
            "",
            "With a layout: what each of its colors shows, in the order of the palette, separated by | ; the prompt is "
            "added to each",
            automatic="",
        ),
        Parameter(
            "guidance",
            Number(1.0, 30.0),
            7.0,
            "How closely the prompt is followed; 1 turns guidance and the negative prompt off and is twice as fast",
        ),
        *(p for p in COMMON if p.name not in _NOT_FROM_WORDS),
    ),
)

PREPARE = JobKind(
    "prepare",
    "Prepare Swatch",
    "Show the swatch as a job uses it: cropped, straightened, evenly lit and scaled. Loads no model",
    (
        SWATCH,
        Picture("regions", "labels", "Map of the swatch, whose regions all stay in the part that is used"),
    ),
    tuple(
        p
        for p in COMMON
        if p.name in ("width", "height", "crop", "corners", "lens", "real_width", "scale", "even_light")
    ),
)

SUGGEST_REGIONS = JobKind(
    "suggest_regions",
    "Suggest Regions",
    "Divide a swatch into its parts by color and texture; the result is a region map. Loads no model",
    (SWATCH,),
    (Parameter("parts", Integer(2, 8), 2, "Number of parts to divide the swatch into"),),
)

ESTIMATE = JobKind(
    "estimate",
    "Estimate Maps",
    "Estimate the normal, roughness and height maps of a photographed surface, and its color without light and shade",
    (Picture("picture", "color", "Picture of a surface, seen from above", True),),
    (
        Parameter(
            "tile",
            Choice(("none", "x", "y", "xy")),
            "none",
            "Axes along which the picture repeats without a seam; its maps then do too",
        ),
        NORMAL_FORMAT,
        NORMAL_STRENGTH,
    ),
    maps_over="picture",
)

TEXTURE_KINDS: dict[str, JobKind] = {kind.name: kind for kind in (SYNTHESIZE, RESTYLE)}
"""The kinds of job that make a texture, which the panel offers."""

_OF_MODEL = ("model", "preset", "detail", "method", "strength", "steps", "iterations", "learning_rate", "precision")


def _for_edit(tile: str, *others: Parameter) -> tuple[Parameter, ...]:
    """The parameters of an edit: the axes that tile, with this default, its own ones, and those of the model."""
    axes = replace(
        next(p for p in COMMON if p.name == "tile"),
        default=tile,
        help="Axes along which the result repeats without a seam",
    )
    return (axes, *others, *(p for p in COMMON if p.name in ("seed", *_OF_MODEL)), NORMAL_FORMAT)


def _extension(name: str) -> Parameter:
    return Parameter(name, Integer(0, MAX_PICTURE_SIDE), 0, f"Pixels that are added at the {name}")


PICTURE = Picture("picture", "color", "Picture to edit: a photograph, a texture or a result", True)

MAKE_TILEABLE = JobKind(
    "make_tileable",
    "Make Tileable",
    "Make a picture repeat without a seam. Only a band at its edges changes, and only where that hides the seam",
    (PICTURE,),
    _for_edit(
        "xy",
        Parameter(
            "band",
            Integer(0, MAX_PICTURE_SIDE),
            0,
            "Pixels at each edge that may change (0: an eighth of the shorter side, at most 256)",
            automatic=0,
        ),
    ),
    maps_over="picture",
)

REPAINT = JobKind(
    "repaint",
    "Repaint",
    "Fill a painted part of a picture from the rest of it, to take out a stain or a logo",
    (PICTURE, Picture("mask", "mask", "White where the picture is filled, black where it stays", True)),
    _for_edit("none"),
    maps_over="picture",
)

EXTEND = JobKind(
    "extend",
    "Extend",
    "Make a picture larger at any side. The old part stays as it is",
    (PICTURE,),
    _for_edit("none", *(_extension(side) for side in ("left", "right", "top", "bottom"))),
    maps_over="picture",
)

RELAYOUT = JobKind(
    "relayout",
    "Change Layout",
    "Change the layout of a result. What has the same material in both layouts stays as it is",
    (
        replace(PICTURE, help="Result whose layout changes"),
        SWATCH,
        Picture("regions", "labels", "Map of the swatch: each of its materials painted in one flat color", True),
        Picture("layout", "labels", "Map of the result: each material painted where it should be, in its color", True),
        Picture("earlier_layout", "labels", "Layout that the result was made with", True),
    ),
    (*(p for p in COMMON if p.name not in ("width", "height")), NORMAL_FORMAT),
    maps_over="picture",
)

EDIT_KINDS: dict[str, JobKind] = {kind.name: kind for kind in (MAKE_TILEABLE, REPAINT, EXTEND, RELAYOUT)}
"""The kinds of job that change a part of a picture and leave the rest as it is."""

KINDS: dict[str, JobKind] = {
    **TEXTURE_KINDS,
    GENERATE.name: GENERATE,
    PREPARE.name: PREPARE,
    SUGGEST_REGIONS.name: SUGGEST_REGIONS,
    ESTIMATE.name: ESTIMATE,
    **EDIT_KINDS,
}
