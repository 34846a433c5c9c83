"""The crop rectangle and the four corners of the swatch while they are dragged. No bpy.

Positions are pixels of the picture as the artist sees it, from its top left corner. A tool calls `press` where the
mouse button goes down, `move` with each movement, and `release`; `text` is the parameter of the job.
"""

from __future__ import annotations

import math

from .. import wire
from ..wire import geometry
from ..wire.geometry import Point, Quad

Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""
CORNER_INSET = 0.15
"""Where the corners begin: this fraction of the picture's sides away from its rim."""


class CropFrame:
    """A rectangle with a handle at each corner and in the middle of each side.

    Attributes:
        size: width and height of the picture.
        box: the rectangle, in whole pixels after `release`.
        handle: what is dragged: letters of "lrtb" for sides, "move", "new", or empty.
    """

    def __init__(self, size: tuple[int, int], text: str = "") -> None:
        self.size = size
        self.box = self.whole
        self.handle = ""
        self._anchor: Point = (0.0, 0.0)
        self._pointer: Point = (0.0, 0.0)
        self._before = self.box
        if text:
            left, top, width, height = geometry.parse_crop(text)
            self.box = self._inside((left, top, left + width, top + height))

    @property
    def whole(self) -> Box:
        """The whole picture."""
        return 0.0, 0.0, float(self.size[0]), float(self.size[1])

    @property
    def text(self) -> str:
        """The parameter `crop`; empty for the whole picture."""
        left, top, right, bottom = self.box
        return "" if self.box == self.whole else geometry.format_crop(left, top, right - left, bottom - top)

    def handles(self) -> dict[str, Point]:
        """The positions of the handles."""
        left, top, right, bottom = self.box
        x = {"l": left, "": (left + right) / 2, "r": right}
        y = {"t": top, "": (top + bottom) / 2, "b": bottom}
        return {h + v: (x[h], y[v]) for h in x for v in y if h + v}

    def handle_at(self, point: Point, reach: float) -> str:
        """The handle within `reach` pixels of a point, or "move" inside of the rectangle, or else "new"."""
        positions = self.handles()
        nearest = min(positions, key=lambda name: math.dist(positions[name], point))
        if math.dist(positions[nearest], point) <= reach:
            return nearest
        left, top, right, bottom = self.box
        inside = left <= point[0] <= right and top <= point[1] <= bottom
        return "move" if inside and self.box != self.whole else "new"

    def press(self, point: Point, reach: float) -> None:
        """Takes hold of what is at a point."""
        self.handle, self._before = self.handle_at(point, reach), self.box
        self._pointer = self._anchor = _clamped(point, self.size)

    def move(self, dx: float, dy: float) -> None:
        """Moves what is held."""
        left, top, right, bottom = self._before
        self._pointer = self._pointer[0] + dx, self._pointer[1] + dy
        x, y = _clamped(self._pointer, self.size)
        ax, ay = self._anchor
        if self.handle == "new":
            self.box = self._inside((min(ax, x), min(ay, y), max(ax, x), max(ay, y)))
        elif self.handle == "move":
            width, height = right - left, bottom - top
            left = min(max(left + self._pointer[0] - ax, 0), self.size[0] - width)
            top = min(max(top + self._pointer[1] - ay, 0), self.size[1] - height)
            self.box = left, top, left + width, top + height
        elif self.handle:
            least = wire.MIN_PICTURE_SIDE
            sides = {
                "l": min(x, right - least) if "l" in self.handle else left,
                "t": min(y, bottom - least) if "t" in self.handle else top,
                "r": max(x, left + least) if "r" in self.handle else right,
                "b": max(y, top + least) if "b" in self.handle else bottom,
            }
            self.box = self._inside((sides["l"], sides["t"], sides["r"], sides["b"]))

    def release(self) -> None:
        """Lets go. A new rectangle that is too small for a job is dropped: it was a click."""
        width, height = self.box[2] - self.box[0], self.box[3] - self.box[1]
        if self.handle == "new" and min(width, height) < wire.MIN_PICTURE_SIDE:
            self.box = self._before
        left, top, right, bottom = (float(round(side)) for side in self.box)
        self.handle, self.box = "", (left, top, right, bottom)

    def reset(self) -> None:
        """Frames the whole picture."""
        self.box = self.whole

    def _inside(self, box: Box) -> Box:
        return *_clamped(box[:2], self.size), *_clamped(box[2:], self.size)


class CornersFrame:
    """Four corners of a rectangle in the scene, seen in the picture.

    Attributes:
        size: width and height of the picture.
        corners: top left, top right, bottom right, bottom left.
        held: the corners that are dragged: one, the two of a side, all of them, or none.
    """

    def __init__(self, size: tuple[int, int], text: str = "") -> None:
        self.size = size
        self.corners = self.first
        self.held: tuple[int, ...] = ()
        if text:
            a, b, c, d = (_clamped(point, size) for point in geometry.parse_corners(text))
            self.corners = a, b, c, d
        self._before = self.corners
        self._moved: Point = (0.0, 0.0)

    @property
    def first(self) -> Quad:
        """Where the corners begin."""
        (width, height), near, far = self.size, CORNER_INSET, 1 - CORNER_INSET
        return (
            (width * near, height * near),
            (width * far, height * near),
            (width * far, height * far),
            (width * near, height * far),
        )

    @property
    def text(self) -> str:
        """The parameter `corners`."""
        return geometry.format_corners(self.corners)

    def problem(self, lens: float) -> str:
        """Why the corners show no rectangle; empty if they do."""
        try:
            geometry.straighten(self.corners, self.size, lens)
            wire.Corners(wire.MAX_PICTURE_SIDE).check(self.text)
        except (ValueError, ZeroDivisionError):
            return "These corners are no rectangle seen from the side: drag them apart, none inside the other three"
        return ""

    def held_at(self, point: Point, reach: float) -> tuple[int, ...]:
        """The corner within `reach` pixels of a point, the two of the side whose middle is there, or all inside."""
        distances = [math.dist(corner, point) for corner in self.corners]
        if min(distances) <= reach:
            return (distances.index(min(distances)),)
        for first in range(4):
            second = (first + 1) % 4
            (ax, ay), (bx, by) = self.corners[first], self.corners[second]
            if math.dist(((ax + bx) / 2, (ay + by) / 2), point) <= reach:
                return first, second
        return (0, 1, 2, 3) if self._contains(point) else ()

    def press(self, point: Point, reach: float) -> None:
        """Takes hold of what is at a point."""
        self.held, self._before, self._moved = self.held_at(point, reach), self.corners, (0.0, 0.0)

    def move(self, dx: float, dy: float) -> None:
        """Moves what is held, as far as it stays in the picture."""
        held = [self._before[i] for i in self.held]
        if not held:
            return
        self._moved = dx, dy = self._moved[0] + dx, self._moved[1] + dy
        dx = min(max(dx, -min(x for x, _ in held)), self.size[0] - max(x for x, _ in held))
        dy = min(max(dy, -min(y for _, y in held)), self.size[1] - max(y for _, y in held))
        a, b, c, d = ((x + dx, y + dy) if i in self.held else (x, y) for i, (x, y) in enumerate(self._before))
        self.corners = a, b, c, d

    def release(self) -> None:
        """Lets go."""
        self.held = ()

    def reset(self) -> None:
        """Puts the corners where they began."""
        self.corners = self.first

    def _contains(self, point: Point) -> bool:
        pairs = zip(self.corners, self.corners[1:] + self.corners[:1], strict=True)
        return all((b[0] - a[0]) * (point[1] - a[1]) - (b[1] - a[1]) * (point[0] - a[0]) >= 0 for a, b in pairs)


def _clamped(point: Point, size: tuple[int, int]) -> Point:
    """The nearest point of the picture."""
    return min(max(point[0], 0.0), size[0]), min(max(point[1], 0.0), size[1])
