"""Pictures as files: arrays as PNG, figures of whatever draws them."""

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from noria.errors import ConfigError

__all__ = ["png_bytes", "write_figure", "write_image"]

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # by channels: gray, gray and alpha, RGB, RGBA


def png_bytes(image: Any) -> bytes:
    r"""Give an array as a PNG picture (ISO/IEC 15948).

    Parameters
    ----------
    image : array of shape (height, width) or (height, width, channels)
        Whole numbers of 0 to 255, booleans, or floats of 0 to 1; channels are gray, gray and alpha, RGB or
        RGBA.

    Raises
    ------
    ConfigError
        If it is none of these.

    Examples
    --------
    >>> png_bytes(np.zeros((2, 3, 3), np.uint8))[:4]
    b'\x89PNG'
    """
    pixels = _pixels(image)
    height, width, channels = pixels.shape
    head = struct.pack(">IIBBBBB", width, height, 8, _COLOUR_TYPES[channels], 0, 0, 0)
    lines = np.zeros((height, 1 + width * channels), np.uint8)  # each line begins with its filter: none
    lines[:, 1:] = pixels.reshape(height, -1)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(lines.tobytes(), 6)), (b"IEND", b""))
    return _SIGNATURE + b"".join(_chunk(kind, data) for kind, data in chunks)


def write_image(image: Any, path: Path) -> None:
    """Write an array as PNG, or a picture of Pillow in the format that the path's ending names."""
    if hasattr(image, "save") and hasattr(image, "tobytes") and not hasattr(image, "dtype"):
        try:
            image.save(path)
        except ValueError as err:
            raise ConfigError(f"the image cannot be written as {path.name!r}: {err}; end it in .png") from err
        return
    if path.suffix.lower() != ".png":
        raise ConfigError(f"an array is written as PNG, and {path.name!r} does not end so; name it .png")
    path.write_bytes(png_bytes(image))


def write_figure(figure: Any, path: Path) -> None:
    """Write a figure by its `savefig` (matplotlib), `write_html` or `to_html` (plotly, Altair).

    Raises
    ------
    ConfigError
        If it has none, or cannot be written in the format that the path's ending names.
    """
    if not path.suffix:
        raise ConfigError(
            "the figure's path has no ending to tell the format by; end it in .png, .svg or .html"
        )
    is_page = path.suffix.lower() in {".html", ".htm"}
    if is_page and hasattr(figure, "write_html"):
        figure.write_html(str(path))
    elif is_page and hasattr(figure, "to_html"):
        path.write_text(figure.to_html(), encoding="utf-8")
    elif not is_page and hasattr(figure, "savefig"):
        try:
            figure.savefig(path)
        except ValueError as err:
            raise ConfigError(f"the figure cannot be written as {path.name!r}: {err}") from err
    else:
        able = [each for each in ("savefig", "write_html", "to_html") if hasattr(figure, each)]
        if not able:
            raise ConfigError(
                f"found a {type(figure).__name__}, wanted a figure with savefig, write_html or to_html; "
                "write it to a file and log that with log_artifact"
            )
        ending = ".png or .svg" if able == ["savefig"] else ".html"
        raise ConfigError(
            f"this figure has {' and '.join(able)}, {path.name!r} fits none; end it in {ending}"
        )


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _pixels(image: Any) -> np.ndarray[Any, np.dtype[np.uint8]]:
    found = np.asarray(image)
    if found.ndim == 2:
        found = found[:, :, np.newaxis]
    if found.ndim != 3 or found.shape[2] not in _COLOUR_TYPES or not found.size:
        raise ConfigError(
            f"an array of shape {np.shape(image)} is no image; wanted is (height, width) or (height, width, "
            "1 to 4 channels)"
        )
    match found.dtype.kind:
        case "b":
            return found.astype(np.uint8) * np.uint8(255)
        case "u" | "i":
            low, high, scale = 0.0, 255.0, 1.0
        case "f":
            low, high, scale = 0.0, 1.0, 255.0
        case _:
            raise ConfigError(
                f"an array of {found.dtype} is no image; give whole numbers of 0 to 255, or floats"
            )
    least, most = float(found.min()), float(found.max())
    if not low <= least <= most <= high:
        raise ConfigError(
            f"an image of {found.dtype} has values from {least:g} to {most:g}, wanted are {low:g} to "
            f"{high:g}; scale it, or cut it off"
        )
    return np.rint(found * scale).astype(np.uint8) if scale != 1.0 else found.astype(np.uint8)
