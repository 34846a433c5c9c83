"""The contract between Blender and the service. Standard library only; both sides import this package and nothing else.

limits      version, sizes, counts
colors      which region a painted color means
errors      the closed list of errors
parameters  parameters and their kinds of value
maps        the maps of a material, which a job takes and returns beside its color
kinds       job kinds: their pictures and parameters
jobs        requests, plans, results and statuses
models      models that are installed or can be downloaded
geometry    lens distortion, and the rectangle that four corners in a photograph show
"""

from .errors import ERRORS, ErrorType, LocalError, WireError
from .jobs import ACTIVE_STATES, FINAL_STATES, STATES, JobRequest, JobStatus, Plan, Result
from .kinds import (
    COMMON,
    CONTENT,
    EDIT_KINDS,
    ESTIMATE,
    EXTEND,
    GENERATE,
    KINDS,
    MAKE_TILEABLE,
    PREPARE,
    RELAYOUT,
    REPAINT,
    RESTYLE,
    SUGGEST_REGIONS,
    SWATCH,
    SYNTHESIZE,
    TEXTURE_KINDS,
    JobKind,
    KindDocument,
    Picture,
    Role,
)
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
from .maps import MAP_NAME, MAPS, MAX_MAPS, MapRole, MapType, Origin, map_input, map_name, map_type
from .models import HUB_TOKEN_HEADER, MODEL_STATES, ModelEntry
from .parameters import Choice, Corners, Crop, Integer, Number, Parameter, ParameterDocument, Rows, Text, Value

__all__ = [
    "ACTIVE_STATES",
    "COMMON",
    "CONTENT",
    "EDIT_KINDS",
    "ERRORS",
    "ESTIMATE",
    "EXTEND",
    "FINAL_STATES",
    "GENERATE",
    "HUB_TOKEN_HEADER",
    "KINDS",
    "MAKE_TILEABLE",
    "MAPS",
    "MAP_NAME",
    "MAX_BLOB_BYTES",
    "MAX_BODY_BYTES",
    "MAX_MAPS",
    "MAX_PICTURE_PIXELS",
    "MAX_PICTURE_SIDE",
    "MAX_QUEUE",
    "MAX_SEED",
    "MIN_PICTURE_SIDE",
    "MODEL_STATES",
    "PICTURE_FORMATS",
    "PREPARE",
    "RELAYOUT",
    "REPAINT",
    "RESTYLE",
    "SERVICE_NAME",
    "SHA256",
    "STATES",
    "SUGGEST_REGIONS",
    "SWATCH",
    "SYNTHESIZE",
    "TEXTURE_KINDS",
    "VERSION",
    "Choice",
    "Corners",
    "Crop",
    "ErrorType",
    "Integer",
    "JobKind",
    "JobRequest",
    "JobStatus",
    "KindDocument",
    "LocalError",
    "MapRole",
    "MapType",
    "ModelEntry",
    "Number",
    "Origin",
    "Parameter",
    "ParameterDocument",
    "Picture",
    "Plan",
    "Result",
    "Role",
    "Rows",
    "Text",
    "Value",
    "WireError",
    "map_input",
    "map_name",
    "map_type",
]
