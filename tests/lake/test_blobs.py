"""Media types by content, then by name; files of a folder as rows."""

import pytest

from noria.errors import ConfigError
from noria.lake.file_declarations import Files
from noria.lake.media_types import media_type_of

PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)


@pytest.mark.parametrize(
    ("head", "name", "expected"),
    [
        (PNG, "scan.jpg", "image/png"),
        (b"\xff\xd8\xff\xe0", "x", "image/jpeg"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "x.png", "image/webp"),
        (b"RIFF\0\0\0\0WAVEfmt ", "x", "audio/wav"),
        (b"%PDF-1.7\n", "x", "application/pdf"),
        (bytes(128) + b"DICM", "x", "application/dicom"),
        (b"PK\x03\x04..", "a.zip", "application/zip"),
        (
            b"PK\x03\x04..",
            "a.docx",
            "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        ),
        (b"hello", "a.txt", "text/plain"),
        (b"<html>", "a.html", "text/html"),
        ("é".encode() * 400, "a", "text/plain"),
        (b'{"a": 1}', "a.json", "application/json"),
        (b"BM is a text", "a.txt", "text/plain"),
        (b"\0\1\2", "a.txt", "application/octet-stream"),
        (b"\0\1\2", "a", "application/octet-stream"),
        (b"", "a.txt", "text/plain"),
        (b"", "a.png", "image/png"),
    ],
)
def test_the_media_type_is_that_of_the_content_first(head: bytes, name: str, expected: str) -> None:
    assert media_type_of(head[:512], name) == expected


@pytest.mark.parametrize("folder", ["", "/etc/*", "../other/*"])
def test_a_folder_lies_in_the_project(folder: str) -> None:
    with pytest.raises(ConfigError, match="give a pattern below the project's folder"):
        Files("scans", folder=folder)
    with pytest.raises(ConfigError, match="cannot name a dataset"):
        Files("scans!", folder="scans/*")
