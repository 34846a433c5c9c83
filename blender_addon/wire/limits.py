"""Constants of the contract: its version, and the largest sizes and counts that the service accepts."""

from __future__ import annotations

import re

VERSION = 3
"""Version of the contract. A service and an add-on with different versions reject each other: `version-mismatch`."""

READABLE_VERSIONS = (1, 2, 3)
"""Versions whose jobs are still read, for example from the PNG of an old result."""

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
