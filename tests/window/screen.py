"""What an X screen shows, as pixels. Runs inside Blender.

Blender's own screenshot reads the window's front buffer, which is black with the software renderer of a virtual screen.
"""

from __future__ import annotations

import ctypes

import numpy as np

ALL_PLANES, Z_PIXMAP = ctypes.c_ulong(-1), 2


class XImage(ctypes.Structure):
    """The beginning of Xlib's XImage."""

    _fields_ = (
        *((name, ctypes.c_int) for name in ("width", "height", "xoffset", "format")),
        ("data", ctypes.c_void_p),
        *((name, ctypes.c_int) for name in ("byte_order", "bitmap_unit", "bitmap_bit_order", "bitmap_pad", "depth")),
        ("bytes_per_line", ctypes.c_int),
        ("bits_per_pixel", ctypes.c_int),
    )


def pixels() -> np.ndarray:
    """The screen of the environment variable DISPLAY: uint8 (height, width, 3), top row first."""
    x11 = ctypes.CDLL("libX11.so.6")
    x11.XOpenDisplay.restype = ctypes.c_void_p
    x11.XDefaultRootWindow.restype = ctypes.c_ulong
    x11.XGetImage.restype = ctypes.POINTER(XImage)
    display = ctypes.c_void_p(x11.XOpenDisplay(None))
    assert display.value, "the environment variable DISPLAY names no X screen"
    try:
        size = (x11.XDisplayWidth(display, 0), x11.XDisplayHeight(display, 0))
        root = ctypes.c_ulong(x11.XDefaultRootWindow(display))
        image = x11.XGetImage(display, root, 0, 0, *map(ctypes.c_uint, size), ALL_PLANES, Z_PIXMAP)
        width, height, line = image.contents.width, image.contents.height, image.contents.bytes_per_line
        assert image.contents.bits_per_pixel == 32, "the screen needs 24 bits of color"
        data = ctypes.string_at(image.contents.data, line * height)
        x11.XDestroyImage(image)
    finally:
        x11.XCloseDisplay(display)
    blue_first = np.frombuffer(data, np.uint8).reshape(height, line // 4, 4)[:, :width]
    return np.ascontiguousarray(blue_first[..., 2::-1])
