"""What kind of content some bytes are: by how they begin, then by the file's name."""

import mimetypes

__all__ = ["HEAD_BYTES", "media_type_of"]

HEAD_BYTES = 512
_UNKNOWN = "application/octet-stream"
_ARCHIVE = "application/zip"
# Where in the content, what stands there, what it is then.
_SIGNS = (
    (0, b"\x89PNG\r\n\x1a\n", "image/png"),
    (0, b"\xff\xd8\xff", "image/jpeg"),
    (0, b"GIF87a", "image/gif"),
    (0, b"GIF89a", "image/gif"),
    (8, b"WEBP", "image/webp"),
    (0, b"II*\x00", "image/tiff"),
    (0, b"MM\x00*", "image/tiff"),
    (0, b"BM", "image/bmp"),
    (4, b"ftypheic", "image/heic"),
    (4, b"ftypavif", "image/avif"),
    (4, b"ftyp", "video/mp4"),
    (0, b"\x1aE\xdf\xa3", "video/x-matroska"),
    (8, b"WAVE", "audio/wav"),
    (8, b"AVI ", "video/x-msvideo"),
    (0, b"ID3", "audio/mpeg"),
    (0, b"\xff\xfb", "audio/mpeg"),
    (0, b"OggS", "audio/ogg"),
    (0, b"fLaC", "audio/flac"),
    (0, b"%PDF-", "application/pdf"),
    (0, b"PK\x03\x04", _ARCHIVE),
    (0, b"\x1f\x8b", "application/gzip"),
    (0, b"PAR1", "application/vnd.apache.parquet"),
    (0, b"ARROW1", "application/vnd.apache.arrow.file"),
    (0, b"\x89HDF\r\n\x1a\n", "application/x-hdf5"),
    (0, b"SQLite format 3\x00", "application/vnd.sqlite3"),
    (128, b"DICM", "application/dicom"),
)
_PACKED_DOCUMENTS = ("application/vnd.", "application/epub", "application/java-archive")


def media_type_of(head: bytes, name: str) -> str:
    """Tell the media type of a content.

    Parameters
    ----------
    head
        Its first `HEAD_BYTES` bytes.
    name
        Of the file; it decides where the content does not.

    Examples
    --------
    >>> media_type_of(b"%PDF-1.7", "scan.png"), media_type_of(b"hello", "a.md"), media_type_of(b"hello", "a")
    ('application/pdf', 'text/markdown', 'text/plain')
    """
    named, packed = mimetypes.guess_type(name, strict=False)
    if not head and named is not None:
        return named
    for place, sign, kind in _SIGNS:
        if head[place : place + len(sign)] != sign:
            continue
        if kind == "image/bmp" and not (named or "").startswith("image/"):
            continue  # two letters are too little to go by
        if kind == _ARCHIVE and named is not None and named.startswith(_PACKED_DOCUMENTS):
            return named
        return kind
    if named is not None and packed is None and _is_text(head) == named.startswith(("text/", *_TEXTUAL)):
        return named
    if _is_text(head):
        return "text/plain"
    return _UNKNOWN if named is None or named.startswith("text/") else named


_TEXTUAL = (
    "application/json",
    "application/xml",
    "application/javascript",
    "application/toml",
    "application/yaml",
    "application/x-ndjson",
    "application/x-sh",
    "image/svg+xml",
    "message/",
)


def _is_text(head: bytes) -> bool:
    if b"\0" in head:
        return False
    try:
        head.decode()
    except UnicodeDecodeError as err:
        return err.start > len(head) - 4 and len(head) >= HEAD_BYTES  # a sign that is cut in two
    return True
