"""The closed list of errors: HTTP status, whether a retry can help, and the remedy in plain words.

WireError        an error of the list, raised on either side of the contract
  LocalError     found in Blender before anything was sent; its sentence already contains the remedy
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ErrorType:
    """One error of the closed list: its HTTP status, whether a retry can help, and the remedy in plain words."""

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
        "The model was not found",
        "Choose one of the models that `ad-service models list` shows, or fetch it with `ad-service models "
        "fetch NAME`.",
    ),
    ErrorType(
        "model-corrupt",
        422,
        False,
        "The model's file is damaged or its architecture is unknown",
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
        "Make a region map of this swatch that has pixels of every region, and paint the layout in its colors only.",
    ),
    ErrorType("invalid-parameter", 422, False, "A parameter is invalid", "Correct the value and try again."),
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
        "The model's output contains NaN or infinity",
        "Try the precision fp32, a lower learning rate, or another seed.",
    ),
    ErrorType(
        "disk-full",
        507,
        True,
        "The disk is full",
        "Free some space on the disk with the service's data folder and try again.",
    ),
    ErrorType("queue-full", 429, True, "Too many jobs are waiting", "Wait until some jobs are done, or cancel some."),
    ErrorType(
        "over-limit",
        403,
        False,
        "A limit of this token is exceeded",
        "Choose a smaller size or delete old jobs, or ask the owner of the service for a higher limit.",
    ),
    ErrorType(
        "blob-missing",
        422,
        True,
        "A picture is missing in the service",
        "Run the job again; its pictures are uploaded again.",
    ),
    ErrorType("blob-mismatch", 422, True, "The upload's checksum does not match", "Upload the picture again."),
    ErrorType("too-large", 413, False, "The data is too large", "Send a smaller picture."),
    ErrorType(
        "conflict",
        409,
        False,
        "Another job with this id exists, or it is not finished",
        "Use a new job id, or wait until the job has ended.",
    ),
    ErrorType(
        "method-not-allowed",
        405,
        False,
        "The route does not have this method",
        "Update the add-on and the service to the same version.",
    ),
    ErrorType(
        "invalid-range",
        416,
        False,
        "The range is outside of the picture",
        "Request a range inside of it, or the whole picture.",
    ),
    ErrorType(
        "not-found",
        404,
        False,
        "Not found",
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
        "The sender of the request is not allowed",
        "Only programs on this machine may use the service, and no web page.",
    ),
    ErrorType(
        "version-mismatch",
        426,
        False,
        "The add-on and the service have different versions",
        "Update both to the same version (run `python install.py` and `python install.py blender` again).",
    ),
    ErrorType(
        "service-unreachable",
        503,
        True,
        "The service does not respond",
        "Press Start Service, or run `ad-service serve` in a terminal.",
    ),
    ErrorType("interrupted", 500, True, "The service stopped while the job was running", "Run the job again."),
    ErrorType(
        "internal",
        500,
        True,
        "Unexpected error in the service",
        "Try again; if it happens again, report it with service.log from the data folder.",
    ),
)
ERRORS: dict[str, ErrorType] = {row.name: row for row in _ERROR_ROWS}


class WireError(Exception):
    """An error of the closed list ERRORS; `detail` is one sentence with what is wrong, where, and its value.

    `data` is the same for code, for example {"parameter": "seed", "minimum": 0, "maximum": 2147483647} or
    {"picture": "swatch"}; nothing parses `detail`.
    """

    def __init__(self, code: str, detail: str, /, **data: Any) -> None:
        super().__init__(detail)
        self.type = ERRORS[code]
        self.detail = detail
        self.data = data

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
            **({"data": self.data} if self.data else {}),
        }

    @classmethod
    def from_problem(cls, problem: Mapping[str, Any]) -> WireError:
        code = str(problem.get("type", "internal"))
        detail = str(problem.get("detail") or problem.get("title") or "unknown error")
        data = problem.get("data")
        named = {str(name): value for name, value in data.items()} if isinstance(data, Mapping) else {}
        return cls(code if code in ERRORS else "internal", detail, **named)


class LocalError(WireError):
    """A WireError whose detail already says what to do; the general remedy of its type would only repeat it."""

    @property
    def sentence(self) -> str:
        return self.detail if self.detail.endswith((".", "!", "?")) else self.detail + "."
