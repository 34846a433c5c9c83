"""A job on the wire: the request, its result, and its status at one revision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from .errors import WireError
from .kinds import KINDS, JobKind
from .limits import READABLE_VERSIONS, SHA256, VERSION
from .maps import MAX_MAPS, PREFIX, map_name

ACTIVE_STATES = ("queued", "running", "canceling")
FINAL_STATES = ("succeeded", "failed", "canceled")
STATES = ACTIVE_STATES + FINAL_STATES

SCALE_IS_AUTOMATIC = 3
"""Version of the contract since which a job without a scale gets the automatic one. Before it the default was 1."""


@dataclass(frozen=True)
class JobRequest:
    """A job kind, its parameters, and its pictures by sha256. Compare with ==."""

    kind: str
    parameters: Mapping[str, Any]
    inputs: Mapping[str, str]

    @classmethod
    def parse(cls, body: Any) -> JobRequest:
        """A checked request with every default filled in; raises WireError."""
        if not isinstance(body, Mapping):
            raise WireError("invalid-request", f"a job must be a JSON object, got {type(body).__name__}")
        version = body.get("wire", VERSION)
        if version not in READABLE_VERSIONS or isinstance(version, bool):
            raise WireError(
                "version-mismatch", f"the job has version {version!r:.200} of the contract; this is version {VERSION}"
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
        if version < SCALE_IS_AUTOMATIC and "scale" not in parameters:
            parameters = {**parameters, "scale": 1.0}
        return cls(kind.name, _checked_parameters(kind, parameters), _checked_inputs(kind, inputs))

    def document(self) -> dict[str, Any]:
        """The JSON form, which `parse` reads back; also the job stored in a result's PNG."""
        return {
            "wire": VERSION,
            "kind": self.kind,
            "parameters": dict(self.parameters),
            "inputs": dict(self.inputs),
        }


def _checked_parameters(kind: JobKind, given: Mapping[str, Any]) -> dict[str, Any]:
    known = [p.name for p in kind.parameters]
    for name in given:
        if name not in known:
            raise WireError(
                "invalid-parameter",
                f"{kind.name} has no parameter {name!r:.200}; it has {', '.join(known)}",
                parameter=str(name)[:200],
            )
    checked = {p.name: p.check(given.get(p.name, p.default)) for p in kind.parameters}
    if checked.get("crop") and checked.get("corners"):
        raise WireError(
            "invalid-parameter",
            f"crop is {checked['crop']!r} and corners are {checked['corners']!r}; only one of them can be used: "
            "empty the crop, and place the corners around the part that is used",
            parameter="crop",
        )
    words = ("prompt", "region_prompts")
    if "guidance" in checked and checked["guidance"] != 1.0 and not any(checked[name].strip() for name in words):
        raise WireError(
            "invalid-parameter",
            f"the prompt is empty and guidance is {checked['guidance']:g}; write what to make, or set guidance to 1",
            parameter="prompt",
        )
    return checked


def _checked_inputs(kind: JobKind, given: Mapping[str, Any]) -> dict[str, str]:
    known = [p.name for p in kind.pictures]
    maps = [name for name in given if kind.maps_over and map_name(str(name))]
    if len(maps) > MAX_MAPS:
        raise WireError("invalid-request", f"{len(maps)} maps are given; {MAX_MAPS} are the limit")
    for name, sha in given.items():
        if name not in known and name not in maps:
            takes = [*known, f"{PREFIX}NAME with a NAME of a to z, 0 to 9 and _"] if kind.maps_over else known
            raise WireError(
                "invalid-request",
                f"{kind.name} takes no picture {name!r:.200}; it takes {', '.join(takes)}",
                picture=str(name)[:200],
            )
        if not isinstance(sha, str) or not SHA256.fullmatch(sha):
            raise WireError(
                "invalid-request",
                f"inputs.{name} is {sha!r:.200}; it must be a sha256 in lower-case hex",
                picture=name,
            )
    for picture in kind.pictures:
        if picture.required and picture.name not in given:
            raise WireError("invalid-request", f"{kind.name} needs the picture {picture.name!r}", picture=picture.name)
    for picture in kind.pictures:
        for needed in picture.needs:
            if picture.name in given and needed not in given:
                code = "invalid-labels" if picture.role == "labels" else "invalid-request"
                detail = f"{picture.name} is given without {needed}; give both or neither"
                raise WireError(code, detail, picture=picture.name)
    return dict(given)


@dataclass(frozen=True)
class Result:
    """The result of a job.

    Attributes:
        outputs: pictures by sha256: always `image`, and `map:NAME` for each map.
        metrics: numbers that were measured on the result.
        notes: what the artist should know.
        seconds: how long the job ran.
        origins: for each map by name where it comes from, see `maps.Origin`.
    """

    outputs: Mapping[str, str]
    metrics: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    origins: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """What a job would use and make, known before it runs.

    Attributes:
        crop: left, top, width, height of the part of the swatch that is used, in pixels of the upright picture, or of
            the straightened picture if the job has corners or a lens.
        scale: pixels of the result for one pixel of that part.
        width, height: of the result in pixels, rounded as the job needs them.
        sentence: the part and the scale in words, for the artist.
        pixels_per_meter: of the result; None if the real width is unknown.
        seconds: estimated from this machine's finished jobs with the same model; None if there are none.
        memory_bytes: estimated use of memory at the peak; None if it cannot be estimated.
        notes: what the artist should know before the job runs.
    """

    crop: tuple[int, int, int, int]
    scale: float
    width: int
    height: int
    sentence: str
    pixels_per_meter: float | None = None
    seconds: float | None = None
    memory_bytes: int | None = None
    notes: tuple[str, ...] = ()

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> Plan:
        """The plan in a JSON object; fields that a newer service adds are ignored."""
        known = {f.name for f in fields(cls)}
        values = {k: v for k, v in document.items() if k in known}
        left, top, width, height = values["crop"]
        return cls(**{**values, "crop": (left, top, width, height), "notes": tuple(values.get("notes", ()))})


@dataclass(frozen=True)
class JobStatus:
    """A job at one revision. Every change raises `revision`; the newest status replaces all earlier ones.

    `state` is one of STATES and `progress` lies in [0, 1]. `phase` is the current stage of the recipe, empty once the
    job has ended; `message` is the same in words, `worker` the id of the slot that runs the job. `preview` is the
    sha256 of the newest preview picture; `created` and `updated` are seconds since 1970. `result` is set when state is
    succeeded, `problem` (problem+json) when it is failed. `artist` is the name of the token that submitted the job,
    empty for the owner of the service.
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
    phase: str = ""
    worker: str | None = None
    artist: str = ""

    @property
    def final(self) -> bool:
        return self.state in FINAL_STATES

    def document(self) -> dict[str, Any]:
        """The JSON form, which `parse` reads back."""
        return asdict(self)

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> JobStatus:
        """The status in a JSON object; fields that a newer service adds are ignored."""
        known = {f.name for f in fields(cls)}
        values = {k: v for k, v in document.items() if k in known}
        if values.get("result") is not None:
            values["result"] = result_of(values["result"])
        return cls(**values)


def result_of(document: Mapping[str, Any]) -> Result:
    """The result in a JSON object."""
    return Result(**{**document, "notes": tuple(document.get("notes", ()))})
