"""The contract between Blender and the service: job kinds, parameters, states, events, error codes.

Standard library only. Both sides import this one file; validation, command-line flags, panel properties and the
README's table are made from the fields below.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

VERSION = 1
"""Version of the contract. A service and an add-on that differ in it refuse each other with `version-mismatch`."""

SERVICE_NAME = "texture-distiller"
MAX_BLOB_BYTES = 256 * 1024 * 1024
MAX_BODY_BYTES = 1024 * 1024
MAX_PICTURE_PIXELS = 16384 * 16384
MAX_PICTURE_SIDE = 16384
MIN_PICTURE_SIDE = 32
MAX_QUEUE = 64
MAX_SEED = 2**31 - 1
PICTURE_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP")
SHA256 = re.compile(r"[0-9a-f]{64}")
_NO_TEXT = re.compile("[\0\ud800-\udfff]")
"""What a text must not have: the zero character, and halves of characters, which no UTF-8 can carry."""


# ---------------------------------------------------------------------------------------------- parameters


@dataclass(frozen=True)
class Parameter:
    """One option of a job: its name, default, bounds and help, said once for every side.

    `kind` is "int", "float", "str" or "enum". Numbers lie in [minimum, maximum] (inclusive); an int is a
    multiple of `multiple`. A parameter whose `automatic` is set has that value mean "let the preset and the
    model decide". `advanced` ones are folded away in the panel.
    """

    name: str
    kind: str
    default: Any
    help: str
    minimum: float | None = None
    maximum: float | None = None
    multiple: int = 1
    choices: tuple[str, ...] = ()
    automatic: Any = None
    advanced: bool = False

    def check(self, value: Any) -> Any:
        """The value in its right type; raises WireError `invalid-parameter` with name, value and bounds."""
        if self.kind == "enum":
            if value not in self.choices:
                raise self._wrong(value, f"one of {', '.join(self.choices)}")
            return value
        if self.kind == "str":
            if not isinstance(value, str) or not 0 < len(value) <= 4096 or _NO_TEXT.search(value):
                raise self._wrong(value, "a text of 1 to 4096 characters of Unicode")
            return value
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self._wrong(value, "a number")
        convert = int if self.kind == "int" else float
        if self.automatic is not None and value == self.automatic:
            return convert(value)
        if not (self.minimum is not None and self.maximum is not None and self.minimum <= value <= self.maximum):
            raise self._wrong(value, f"between {self.minimum} and {self.maximum}")
        if self.kind == "int" and int(value) != value:
            raise self._wrong(value, "a whole number")
        if self.kind == "int" and value % self.multiple:
            raise self._wrong(value, f"a multiple of {self.multiple} between {self.minimum} and {self.maximum}")
        return convert(value)

    def _wrong(self, value: Any, expected: str) -> WireError:
        return WireError("invalid-parameter", f"{self.name} is {value!r:.200}; it must be {expected}")


@dataclass(frozen=True)
class Picture:
    """A picture that a job takes in: sent as a blob, named in `inputs` by its sha256."""

    name: str
    required: bool
    help: str


@dataclass(frozen=True)
class JobKind:
    """What can be asked for: its title in the panel, the pictures that go in and the parameters that steer it."""

    name: str
    title: str
    help: str
    pictures: tuple[Picture, ...]
    parameters: tuple[Parameter, ...]

    def parameter(self, name: str) -> Parameter:
        return next(p for p in self.parameters if p.name == name)


def _size(name: str) -> Parameter:
    return Parameter(name, "int", 512, f"{name.capitalize()} of the texture in pixels", 64, MAX_PICTURE_SIDE, 8)


COMMON = (
    Parameter("model", "str", "pocket", "Model: pocket (ships with the service), or the name of one of your own"),
    _size("width"),
    _size("height"),
    Parameter(
        "tile",
        "enum",
        "xy",
        "Axes along which the texture repeats without a seam",
        choices=("none", "x", "y", "xy"),
    ),
    Parameter("seed", "int", 0, "The same seed gives the same texture again on the same device", 0, MAX_SEED),
    Parameter(
        "scale",
        "float",
        1.0,
        "Size of the grain: 2 makes every stone twice as large as in the swatch",
        0.25,
        4.0,
    ),
    Parameter(
        "even_light",
        "float",
        0.0,
        "How much of the swatch's broad light and shade is taken out first: for a photograph lit from one side",
        0.0,
        1.0,
    ),
    Parameter(
        "preset",
        "enum",
        "standard",
        "Quality: how much time the model may take",
        choices=("draft", "standard", "fine"),
    ),
    Parameter(
        "detail",
        "enum",
        "auto",
        "What sharpens the result: the decoder fitted to the swatch, a last pass in pixels, or both",
        choices=("auto", "off", "decoder", "pixels", "both"),
        advanced=True,
    ),
    Parameter(
        "method",
        "enum",
        "auto",
        "How the model is asked: optimise the picture directly, or sample it with guidance",
        choices=("auto", "optimise", "sample"),
        advanced=True,
    ),
    Parameter(
        "start",
        "enum",
        "auto",
        "What the canvas starts from: noise, random swatch pixels of the right region, or a quilt of swatch pieces",
        choices=("auto", "noise", "fill", "quilt"),
        advanced=True,
    ),
    Parameter(
        "strength",
        "float",
        0.0,
        "How far the start is changed: the part of the noise schedule that is run (0: automatic)",
        0.01,
        1.0,
        automatic=0.0,
        advanced=True,
    ),
    Parameter("steps", "int", 0, "Steps of the sampler (0: automatic)", 1, 1000, automatic=0, advanced=True),
    Parameter(
        "iterations",
        "int",
        0,
        "Adam iterations in each step (0: automatic)",
        1,
        20,
        automatic=0,
        advanced=True,
    ),
    Parameter(
        "learning_rate",
        "float",
        0.0,
        "Learning rate of Adam on the latents (0: automatic)",
        0.0001,
        1.0,
        automatic=0.0,
        advanced=True,
    ),
    Parameter(
        "content_weight",
        "float",
        -1.0,
        "Weight of the content loss, which keeps the start's or the content picture's structure (-1: automatic)",
        0.0,
        10.0,
        automatic=-1.0,
        advanced=True,
    ),
    Parameter(
        "precision",
        "enum",
        "auto",
        "Number format of the network; latents are always 32 bit",
        choices=("auto", "fp32", "bf16", "fp16"),
        advanced=True,
    ),
)

SWATCH = Picture("swatch", True, "The exemplar: a photograph, a crop or a scan of the material")

CONTENT = Picture("content", True, "What is to be seen in the new material: a picture, or a texture that tiles already")

SYNTHESIZE = JobKind(
    "synthesize",
    "Make More of It",
    "A new, larger, tileable texture from a swatch, laid out by hand if a layout is given",
    (
        SWATCH,
        Picture("regions", False, "Label map over the swatch: one flat colour for each of its parts"),
        Picture("layout", False, "Label map over the result, painted with the colours of the regions"),
    ),
    COMMON,
)


def _for_restyle(parameter: Parameter) -> Parameter:
    """A parameter as a restyling has it: of the content's own size unless told, and with a quick preview."""
    if parameter.name in ("width", "height"):
        help = f"{parameter.help} (0: that of the content, to a multiple of {parameter.multiple})"
        return replace(parameter, default=0, automatic=0, help=help)
    if parameter.name == "method":
        help = "As for a texture; preview is one pass that optimises nothing and keeps the content's fine shapes"
        return replace(parameter, choices=(*parameter.choices, "preview"), help=help)
    return parameter


RESTYLE = JobKind(
    "restyle",
    "Restyle",
    "A picture or a texture made anew in the material of a swatch; what tiles still tiles",
    (CONTENT, SWATCH),
    tuple(_for_restyle(p) for p in COMMON if p.name != "start"),
)

KINDS: dict[str, JobKind] = {kind.name: kind for kind in (SYNTHESIZE, RESTYLE)}


# ---------------------------------------------------------------------------------------------- errors


@dataclass(frozen=True)
class ErrorType:
    """One way to fail: the HTTP status, whether trying again can help, and what to do in plain words."""

    name: str
    status: int
    retryable: bool
    title: str
    remedy: str


_ERROR_ROWS = (
    ErrorType(
        "out-of-memory",
        507,
        True,
        "The device ran out of memory",
        "Close other programs that use the GPU, choose a smaller size, or use the pocket model.",
    ),
    ErrorType(
        "worker-crashed",
        500,
        True,
        "The worker process died",
        "Try again; if it dies again, run `ad-service doctor` and look at worker.log in the data folder.",
    ),
    ErrorType(
        "device-unavailable",
        503,
        True,
        "The compute device cannot be used",
        "Run `ad-service doctor` to see what is wrong with it.",
    ),
    ErrorType(
        "model-missing",
        422,
        False,
        "The model is not at hand",
        "Choose one of the models that `ad-service models list` shows, or fetch it with `ad-service models "
        "fetch NAME`.",
    ),
    ErrorType(
        "model-corrupt",
        422,
        False,
        "The model's file is damaged or of an unknown kind",
        "Run `ad-service models list` to see what can be used, and `ad-service models check NAME` to read one in full.",
    ),
    ErrorType(
        "invalid-image",
        422,
        False,
        "A picture cannot be used",
        "Use an ordinary 8-bit PNG or JPEG with sides from 32 to 16384 pixels.",
    ),
    ErrorType(
        "invalid-labels",
        422,
        False,
        "The regions and the layout do not fit together",
        "Make a region map of this swatch that has pixels of every region, and paint the layout with its colours only.",
    ),
    ErrorType("invalid-parameter", 422, False, "A parameter is out of bounds", "Correct the value and try again."),
    ErrorType(
        "invalid-request",
        400,
        False,
        "The request cannot be understood",
        "Update the add-on and the service to the same version.",
    ),
    ErrorType(
        "nan-output",
        500,
        True,
        "The model gave numbers that are no picture",
        "Try the precision fp32, a lower learning rate, or another seed.",
    ),
    ErrorType(
        "disk-full",
        507,
        True,
        "The disk is full",
        "Free some space on the disk of the service's data folder and try again.",
    ),
    ErrorType("queue-full", 429, True, "Too many jobs are waiting", "Wait until some jobs are done, or cancel some."),
    ErrorType("blob-missing", 422, True, "A picture is not there", "Run the job again; its pictures are sent anew."),
    ErrorType("blob-mismatch", 422, True, "A picture was damaged on its way", "Send the picture again."),
    ErrorType("too-large", 413, False, "The data is too large", "Send a smaller picture."),
    ErrorType("conflict", 409, False, "A job of this name exists with other contents", "Use a new job id."),
    ErrorType(
        "not-found",
        404,
        False,
        "There is no such thing here",
        "The service may have been started with another data folder; submit the job again.",
    ),
    ErrorType(
        "unauthorized",
        401,
        False,
        "The token is missing or wrong",
        "Reconnect: the token is read from runtime.json in the service's data folder.",
    ),
    ErrorType(
        "forbidden",
        403,
        False,
        "The request came from a place that is not allowed",
        "Only programs on this machine may talk to the service, and no web page.",
    ),
    ErrorType(
        "version-mismatch",
        426,
        False,
        "The add-on and the service are of different versions",
        "Update both to the same version (run `python install.py` and `python install.py blender` again).",
    ),
    ErrorType(
        "service-unreachable",
        503,
        True,
        "The service is not there",
        "Press Start, or run `ad-service serve` in a terminal.",
    ),
    ErrorType("interrupted", 500, True, "The service was stopped while the job ran", "Run the job again."),
    ErrorType(
        "internal",
        500,
        True,
        "Something went wrong inside the service",
        "Try again; if it stays, report it with service.log from the data folder.",
    ),
)
ERRORS: dict[str, ErrorType] = {row.name: row for row in _ERROR_ROWS}


class WireError(Exception):
    """An error of the closed list in ERRORS, with one sentence that says what, where and its value."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.type = ERRORS[code]
        self.detail = detail

    @property
    def code(self) -> str:
        return self.type.name

    @property
    def sentence(self) -> str:
        """What went wrong and what to do about it, for a panel or a terminal."""
        detail = self.detail if self.detail.endswith((".", "!", "?")) else self.detail + "."
        return f"{detail} {self.type.remedy}"

    def problem(self) -> dict[str, Any]:
        """As RFC 9457 problem+json."""
        row = self.type
        return {
            "type": row.name,
            "title": row.title,
            "status": row.status,
            "detail": self.detail,
            "remedy": row.remedy,
            "retryable": row.retryable,
        }

    @classmethod
    def from_problem(cls, problem: Mapping[str, Any]) -> WireError:
        code = str(problem.get("type", "internal"))
        detail = str(problem.get("detail") or problem.get("title") or "unknown error")
        return cls(code if code in ERRORS else "internal", detail)


# ---------------------------------------------------------------------------------------------- jobs

ACTIVE_STATES = ("queued", "running", "cancelling")
FINAL_STATES = ("succeeded", "failed", "canceled")
STATES = ACTIVE_STATES + FINAL_STATES


@dataclass(frozen=True)
class JobRequest:
    """What a client asks for: a kind, its parameters, and its pictures by sha256. Compare with ==."""

    kind: str
    parameters: Mapping[str, Any]
    inputs: Mapping[str, str]

    @classmethod
    def parse(cls, body: Any) -> JobRequest:
        """A checked request with every default filled in; raises WireError."""
        if not isinstance(body, Mapping):
            raise WireError("invalid-request", f"a job must be a JSON object, got {type(body).__name__}")
        version = body.get("wire", VERSION)
        if version != VERSION:
            raise WireError(
                "version-mismatch", f"the job speaks version {version!r:.200} of the contract, this is {VERSION}"
            )
        kind = KINDS.get(str(body.get("kind")))
        if kind is None:
            raise WireError(
                "invalid-request", f"job kind is {body.get('kind')!r:.200}; it must be one of {', '.join(KINDS)}"
            )
        parameters = body.get("parameters", {})
        inputs = body.get("inputs", {})
        if not isinstance(parameters, Mapping) or not isinstance(inputs, Mapping):
            raise WireError("invalid-request", "parameters and inputs must be JSON objects")
        return cls(kind.name, _checked_parameters(kind, parameters), _checked_inputs(kind, inputs))

    def document(self) -> dict[str, Any]:
        """The JSON form, which `parse` reads back; also the job file that a result's PNG carries."""
        return {
            "wire": VERSION,
            "kind": self.kind,
            "parameters": dict(self.parameters),
            "inputs": dict(self.inputs),
        }

    def digest(self) -> str:
        """sha256 of the canonical JSON form."""
        return hashlib.sha256(json.dumps(self.document(), sort_keys=True).encode()).hexdigest()


def _checked_parameters(kind: JobKind, given: Mapping[str, Any]) -> dict[str, Any]:
    known = [p.name for p in kind.parameters]
    for name in given:
        if name not in known:
            raise WireError(
                "invalid-parameter", f"{kind.name} has no parameter {name!r:.200}; it has {', '.join(known)}"
            )
    return {p.name: p.check(given.get(p.name, p.default)) for p in kind.parameters}


def _checked_inputs(kind: JobKind, given: Mapping[str, Any]) -> dict[str, str]:
    known = [p.name for p in kind.pictures]
    for name, sha in given.items():
        if name not in known:
            raise WireError(
                "invalid-request", f"{kind.name} takes no picture {name!r:.200}; it takes {', '.join(known)}"
            )
        if not isinstance(sha, str) or not SHA256.fullmatch(sha):
            raise WireError("invalid-request", f"inputs.{name} is {sha!r:.200}; it must be a sha256 in lower-case hex")
    for picture in kind.pictures:
        if picture.required and picture.name not in given:
            raise WireError("invalid-request", f"{kind.name} needs the picture {picture.name!r}")
    if ("regions" in given) != ("layout" in given):
        have, lack = ("regions", "layout") if "regions" in given else ("layout", "regions")
        raise WireError("invalid-labels", f"{have} is given without {lack}; a painted layout needs both")
    return dict(given)


@dataclass(frozen=True)
class Result:
    """What a job left: pictures by sha256 (always `image`), figures, and notes for the artist."""

    outputs: Mapping[str, str]
    metrics: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True)
class JobStatus:
    """A job as the service tells it, at one revision. Every change raises `revision`; the newest replaces all before.

    `progress` lies in [0, 1]; `preview` is the sha256 of the newest preview picture; `created` and `updated` are
    seconds since 1970. `result` is set when state is succeeded, `problem` (problem+json) when it is failed.
    """

    id: str
    request: Mapping[str, Any]
    state: str
    revision: int
    attempt: int
    progress: float
    message: str
    created: float
    updated: float
    seconds_left: float | None = None
    preview: str | None = None
    result: Result | None = None
    problem: Mapping[str, Any] | None = None

    @property
    def final(self) -> bool:
        return self.state in FINAL_STATES

    def document(self) -> dict[str, Any]:
        """The JSON form, which `parse` reads back."""
        return asdict(self)

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> JobStatus:
        """The status of a JSON object; fields that a newer service adds are ignored."""
        known = {f.name for f in fields(cls)}
        values = {k: v for k, v in document.items() if k in known}
        if values.get("result") is not None:
            values["result"] = _result(values["result"])
        return cls(**values)


def _result(document: Mapping[str, Any]) -> Result:
    return Result(**{**document, "notes": tuple(document.get("notes", ()))})


# ---------------------------------------------------------------------------------------------- worker commands


@dataclass(frozen=True)
class Run:
    """The service to its worker: run this job (`request` is a JobRequest.document())."""

    job: str
    request: Mapping[str, Any]


@dataclass(frozen=True)
class Cancel:
    """The service to its worker: end this job at its next step."""

    job: str


Command = Run | Cancel


def encode_command(command: Command) -> str:
    """One JSON line, without the newline."""
    return json.dumps({"command": type(command).__name__.lower(), **asdict(command)})


def decode_command(line: str) -> Command:
    """The command of a JSON line; raises ValueError for anything else."""
    document = json.loads(line)
    name = document.pop("command", None) if isinstance(document, dict) else None
    if name == "run":
        return Run(**document)
    if name == "cancel":
        return Cancel(**document)
    raise ValueError(f"not a command: {line[:200]!r}")


# ---------------------------------------------------------------------------------------------- worker events


@dataclass(frozen=True)
class Ready:
    """The worker did a real tensor operation on its device."""

    device: str
    device_name: str
    memory_total: int
    memory_free: int


@dataclass(frozen=True)
class Progress:
    """A running job: fraction in [0, 1], a message, an estimate of the seconds left, the newest preview's sha256."""

    job: str
    fraction: float
    message: str
    seconds_left: float | None = None
    preview: str | None = None


@dataclass(frozen=True)
class Succeeded:
    job: str
    result: Result


@dataclass(frozen=True)
class Failed:
    job: str
    problem: Mapping[str, Any]


@dataclass(frozen=True)
class Canceled:
    job: str


Event = Ready | Progress | Succeeded | Failed | Canceled
"""What the worker says, one JSON line each. A job's events end with exactly one Succeeded, Failed or Canceled."""

_EVENTS: dict[str, type[Any]] = {cls.__name__.lower(): cls for cls in (Ready, Progress, Succeeded, Failed, Canceled)}


def encode_event(event: Event) -> str:
    """One JSON line, without the newline."""
    return json.dumps({"event": type(event).__name__.lower(), **asdict(event)})


def decode_event(line: str) -> Event:
    """The event of a JSON line; raises ValueError for anything else."""
    document = json.loads(line)
    cls = _EVENTS.get(document.pop("event", None)) if isinstance(document, dict) else None
    if cls is None:
        raise ValueError(f"not an event: {line[:200]!r}")
    if cls is Succeeded:
        document["result"] = _result(document["result"])
    known = {f.name for f in fields(cls)}
    event: Event = cls(**{k: v for k, v in document.items() if k in known})
    return event
