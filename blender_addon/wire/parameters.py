"""Parameters of a job, and the kinds of value that they can have.

A kind of value is one class here. It checks a value of a request, reads it from a command line, and describes itself;
the service, the command line, the panel and the documentation only use these methods, so that a new kind of value
touches this file alone. Blender has its own properties for int, float and enum; any other kind is edited as text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from .errors import WireError

_INVALID_TEXT = re.compile("[\0\ud800-\udfff]")
"""The zero character, and halves of surrogate pairs, which UTF-8 cannot encode."""

_LONGEST_TEXT = 4096


class Value(Protocol):
    """A kind of value: its name on the wire (`kind`) and what it accepts."""

    kind: ClassVar[str]

    def check(self, value: Any) -> Any:
        """The value in its own type; raises ValueError with what was expected ("between 0 and 1")."""

    def parse(self, text: str) -> Any:
        """The value written as text on a command line, not yet checked; raises ValueError with what was expected."""

    def format(self, value: Any) -> str:
        """The text that `parse` reads back."""

    def nearest(self, value: Any) -> Any:
        """The accepted value nearest to one of the same type, as a slider or a picture's size gives it."""

    def schema(self) -> dict[str, Any]:
        """JSON Schema of the accepted values."""

    def range(self) -> str:
        """The accepted values in words, for a table and a command line: "64 to 16384 in steps of 8"."""


@dataclass(frozen=True)
class Number:
    """A float in [minimum, maximum]."""

    kind: ClassVar[str] = "float"
    minimum: float
    maximum: float

    def check(self, value: Any) -> float:
        return float(_in_bounds(value, self.minimum, self.maximum))

    def parse(self, text: str) -> float:
        return _parse_number(text, float)

    def format(self, value: Any) -> str:
        return str(value)

    def nearest(self, value: float) -> float:
        return min(max(float(f"{value:.6g}"), self.minimum), self.maximum)

    def schema(self) -> dict[str, Any]:
        return {"type": "number", "minimum": self.minimum, "maximum": self.maximum}

    def range(self) -> str:
        return f"{self.minimum:g} to {self.maximum:g}"


@dataclass(frozen=True)
class Integer:
    """An int in [minimum, maximum] that is a multiple of `multiple`."""

    kind: ClassVar[str] = "int"
    minimum: int
    maximum: int
    multiple: int = 1

    def check(self, value: Any) -> int:
        _in_bounds(value, self.minimum, self.maximum)
        if int(value) != value:
            raise ValueError("a whole number")
        if value % self.multiple:
            raise ValueError(f"a multiple of {self.multiple} between {self.minimum} and {self.maximum}")
        return int(value)

    def parse(self, text: str) -> int:
        return int(_parse_number(text, int))

    def format(self, value: Any) -> str:
        return str(value)

    def nearest(self, value: float) -> int:
        return min(max(round(value / self.multiple) * self.multiple, self.minimum), self.maximum)

    def schema(self) -> dict[str, Any]:
        bounds = {"type": "integer", "minimum": self.minimum, "maximum": self.maximum}
        return bounds if self.multiple == 1 else {**bounds, "multipleOf": self.multiple}

    def range(self) -> str:
        steps = f" in steps of {self.multiple}" if self.multiple > 1 else ""
        return f"{self.minimum} to {self.maximum}{steps}"


class _WrittenAsText:
    """What the values that are texts have in common: a command line and a panel write them as they are."""

    def parse(self, text: str) -> str:
        return text

    def format(self, value: Any) -> str:
        return str(value)

    def nearest(self, value: str) -> str:
        return value


@dataclass(frozen=True)
class Text(_WrittenAsText):
    """A text of 1 to 4096 characters."""

    kind: ClassVar[str] = "str"

    def check(self, value: Any) -> str:
        if not isinstance(value, str) or not 0 < len(value) <= _LONGEST_TEXT or _INVALID_TEXT.search(value):
            raise ValueError(f"a text of 1 to {_LONGEST_TEXT} Unicode characters")
        return value

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "minLength": 1, "maxLength": _LONGEST_TEXT}

    def range(self) -> str:
        return "text"


@dataclass(frozen=True)
class Choice(_WrittenAsText):
    """One of a few names. `aliases` maps names of older versions to those of today."""

    kind: ClassVar[str] = "enum"
    choices: tuple[str, ...]
    aliases: Mapping[str, str] = field(default_factory=dict, hash=False)

    def check(self, value: Any) -> str:
        name = self.aliases.get(value, value) if isinstance(value, str) else value
        if name not in self.choices:
            raise ValueError(f"one of {', '.join(self.choices)}")
        return str(name)

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "enum": list(self.choices)}

    def range(self) -> str:
        return ", ".join(self.choices)


@dataclass(frozen=True)
class Rows:
    """A list of at most `longest` rows (name, weight), each name once, weights in [minimum, maximum].

    JSON has a list of [name, weight]; a command line has `name:weight,name:weight`, where the weight may be left out.
    """

    kind: ClassVar[str] = "rows"
    minimum: float
    maximum: float
    longest: int = 16

    def check(self, value: Any) -> tuple[tuple[str, float], ...]:
        if not isinstance(value, (list, tuple)) or len(value) > self.longest:
            raise ValueError(f"a list of at most {self.longest} rows [name, weight]")
        rows = tuple(self._check_row(row) for row in value)
        if len({name for name, _ in rows}) < len(rows):
            raise ValueError("a list in which each name occurs once")
        return rows

    def _check_row(self, row: Any) -> tuple[str, float]:
        if not isinstance(row, (list, tuple)) or len(row) != 2:
            raise ValueError("a list of rows [name, weight]")
        try:
            return Text().check(row[0]), Number(self.minimum, self.maximum).check(row[1])
        except ValueError as error:
            raise ValueError(
                f"rows [name, weight], and in {row!r:.100} the name or the weight must be {error}"
            ) from None

    def parse(self, text: str) -> list[list[str | float]]:
        rows: list[list[str | float]] = []
        for part in filter(None, (part.strip() for part in text.split(","))):
            name, colon, weight = part.rpartition(":")
            rows.append([name, _parse_number(weight, float)] if colon else [part, 1.0])
        return rows

    def format(self, value: Any) -> str:
        return ",".join(f"{name}:{weight:g}" for name, weight in value)

    def nearest(self, value: Any) -> Any:
        return value

    def schema(self) -> dict[str, Any]:
        weight = {"type": "number", "minimum": self.minimum, "maximum": self.maximum}
        row = {"type": "array", "prefixItems": [{"type": "string"}, weight], "minItems": 2, "maxItems": 2}
        return {"type": "array", "items": row, "maxItems": self.longest}

    def range(self) -> str:
        return f"name:weight,... with weights from {self.minimum:g} to {self.maximum:g}"


@dataclass(frozen=True)
class Crop(_WrittenAsText):
    """A rectangle of a picture as a text "left,top,width,height" in pixels, its sides at least `shortest`."""

    kind: ClassVar[str] = "crop"
    shortest: int
    longest: int

    def check(self, value: Any) -> str:
        numbers = _numbers(value, ",")
        left, top, width, height = numbers if len(numbers) == 4 else (-1.0,) * 4
        whole = all(number == round(number) for number in numbers)
        if not whole or min(left, top) < 0 or min(width, height) < self.shortest:
            raise ValueError(self.range())
        if max(left + width, top + height) > self.longest:
            raise ValueError(f"a rectangle inside a picture of at most {self.longest} pixels a side")
        return ",".join(str(round(number)) for number in numbers)

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "pattern": r"^\d+,\d+,\d+,\d+$"}

    def range(self) -> str:
        return f"left,top,width,height in pixels, with sides of at least {self.shortest}"


@dataclass(frozen=True)
class Corners(_WrittenAsText):
    """Four points of a picture as a text "x,y x,y x,y x,y" in pixels, to a hundredth.

    They are the top left, top right, bottom right and bottom left corner of a rectangle in the scene, and form a
    convex quadrilateral.
    """

    kind: ClassVar[str] = "corners"
    longest: int

    def check(self, value: Any) -> str:
        points = [_numbers(part, ",") for part in str(value).split()] if isinstance(value, str) else []
        if len(points) != 4 or any(len(point) != 2 for point in points):
            raise ValueError(self.range())
        if not all(0 <= number <= self.longest for point in points for number in point):
            raise ValueError(f"points from 0 to {self.longest}")
        for (ax, ay), (bx, by), (cx, cy) in zip(points, points[1:] + points[:1], points[2:] + points[:2], strict=True):
            if (bx - ax) * (cy - by) - (by - ay) * (cx - bx) < 1.0:
                raise ValueError("four corners in the order top left, top right, bottom right, bottom left")
        return " ".join(",".join(f"{number:.2f}".rstrip("0").rstrip(".") for number in point) for point in points)

    def schema(self) -> dict[str, Any]:
        point = r"\d+(\.\d+)?,\d+(\.\d+)?"
        return {"type": "string", "pattern": f"^{point}( {point}){{3}}$"}

    def range(self) -> str:
        return "x,y x,y x,y x,y in pixels"


def _numbers(value: Any, separator: str) -> list[float]:
    """The finite numbers of a text; an empty list for anything else."""
    if not isinstance(value, str) or len(value) > _LONGEST_TEXT:
        return []
    try:
        numbers = [float(part) for part in value.split(separator)]
    except ValueError:
        return []
    return numbers if all(math.isfinite(number) for number in numbers) else []


def _in_bounds(value: Any, minimum: float, maximum: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError("a number")
    if not minimum <= value <= maximum:
        raise ValueError(f"between {minimum} and {maximum}")
    return value


def _parse_number(text: str, convert: type[int] | type[float]) -> float:
    try:
        return convert(text)
    except ValueError:
        raise ValueError("a whole number" if convert is int else "a number") from None


@dataclass(frozen=True)
class Parameter:
    """One option of a job: name, kind of value, default and help.

    A parameter that has an `automatic` value leaves the choice to the preset and the model when it has that value.
    `advanced` ones are in a closed section of the panel.
    """

    name: str
    value: Value
    default: Any
    help: str
    automatic: Any = None
    advanced: bool = False

    def check(self, value: Any) -> Any:
        """The value in its own type; raises WireError `invalid-parameter` with name, value and bounds."""
        if self.automatic is not None and value == self.automatic and not isinstance(value, bool):
            return type(self.automatic)(value)
        try:
            return self.value.check(value)
        except ValueError as error:
            raise self._invalid(value, error) from None

    def parse(self, text: str) -> Any:
        """The checked value of a text; raises WireError `invalid-parameter`."""
        try:
            value = self.value.parse(text)
        except ValueError as error:
            raise self._invalid(text, error) from None
        return self.check(value)

    def _invalid(self, value: Any, error: ValueError) -> WireError:
        """The error for a value; its data are the parameter's name, and the bounds or the choices if it has them."""
        schema = self.value.schema()
        names = {"minimum": "minimum", "maximum": "maximum", "enum": "choices"}
        accepted = {name: schema[key] for key, name in names.items() if key in schema}
        return WireError(
            "invalid-parameter", f"{self.name} is {value!r:.200}; it must be {error}", parameter=self.name, **accepted
        )

    def given(self, value: Any) -> Any:
        """The value, or None where it has the value that means automatic."""
        return None if self.automatic is not None and value == self.automatic else value

    def schema(self) -> dict[str, Any]:
        """JSON Schema of the parameter, with its default and help."""
        schema = self.value.schema()
        if self.automatic is not None:
            schema = {"anyOf": [{"const": self.automatic}, schema]}
        return {**schema, "default": self.default, "description": self.help}

    def document(self) -> ParameterDocument:
        """The declaration as `/v1/capabilities` lists it."""
        schema = self.value.schema()
        return ParameterDocument(
            self.name,
            self.value.kind,
            self.default,
            self.help,
            minimum=schema.get("minimum"),
            maximum=schema.get("maximum"),
            multiple=schema.get("multipleOf", 1),
            choices=tuple(schema.get("enum", ())),
            automatic=self.automatic,
            advanced=self.advanced,
            schema=self.schema(),
        )


@dataclass(frozen=True)
class ParameterDocument:
    """A parameter in `/v1/capabilities`: `kind` names its kind of value, `schema` is its JSON Schema."""

    name: str
    kind: str
    default: Any
    help: str
    minimum: float | None
    maximum: float | None
    multiple: int
    choices: tuple[str, ...]
    automatic: Any
    advanced: bool
    schema: Mapping[str, Any]
