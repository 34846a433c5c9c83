"""The contract between Blender and the service. Standard library only; both sides import this package and nothing else.

limits      version, sizes, counts
colors      which region a painted color means
errors      the closed list of errors
parameters  parameters and their kinds of value
kinds       job kinds: their pictures and parameters
jobs        requests, results and statuses
models      models that are installed or can be downloaded
"""

from .errors import ERRORS, ErrorType, LocalError, WireError
from .jobs import ACTIVE_STATES, FINAL_STATES, STATES, JobRequest, JobStatus, Result
from .kinds import COMMON, CONTENT, KINDS, RESTYLE, SWATCH, SYNTHESIZE, JobKind, KindDocument, Picture, Role
from .limits import (
    MAX_BLOB_BYTES,
    MAX_BODY_BYTES,
    MAX_PICTURE_PIXELS,
    MAX_PICTURE_SIDE,
    MAX_QUEUE,
    MAX_SEED,
    MIN_PICTURE_SIDE,
    PICTURE_FORMATS,
    SERVICE_NAME,
    SHA256,
    VERSION,
)
from .models import HUB_TOKEN_HEADER, MODEL_STATES, ModelEntry
from .parameters import Choice, Integer, Number, Parameter, ParameterDocument, Rows, Text, Value

__all__ = [
    "ACTIVE_STATES",
    "COMMON",
    "CONTENT",
    "ERRORS",
    "FINAL_STATES",
    "HUB_TOKEN_HEADER",
    "KINDS",
    "MAX_BLOB_BYTES",
    "MAX_BODY_BYTES",
    "MAX_PICTURE_PIXELS",
    "MAX_PICTURE_SIDE",
    "MAX_QUEUE",
    "MAX_SEED",
    "MIN_PICTURE_SIDE",
    "MODEL_STATES",
    "PICTURE_FORMATS",
    "RESTYLE",
    "SERVICE_NAME",
    "SHA256",
    "STATES",
    "SWATCH",
    "SYNTHESIZE",
    "VERSION",
    "Choice",
    "ErrorType",
    "Integer",
    "JobKind",
    "JobRequest",
    "JobStatus",
    "KindDocument",
    "LocalError",
    "ModelEntry",
    "Number",
    "Parameter",
    "ParameterDocument",
    "Picture",
    "Result",
    "Role",
    "Rows",
    "Text",
    "Value",
    "WireError",
]
