"""Which code a process runs: the commit, what is uncommitted, and the installed distributions."""

import os
import platform
import re
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from noria.records import sha256_hex

__all__ = ["CapturedCode", "CodeState", "capture_code"]

_SOURCE_SUFFIXES = (".py", ".sql", ".toml")  # of files that are not yet under version control
_GIT_TIMEOUT_S = 20.0
_NO_CODE = "none"
_OWN_FOLDER = Path(__file__).parent.parent
_INSTALLED = frozenset({"site-packages", "dist-packages"})
_DIST_INFO = re.compile(r"(?P<name>[^-]+)-(?P<version>[^-]+)\.dist-info")


@dataclass(frozen=True, slots=True)
class CodeState:
    """What a run says about its code."""

    commit: str  # "none" outside of a repository
    diff: str | None  # sha256 of the patch
    runtime: str  # sha256 of the list of distributions


@dataclass(frozen=True, slots=True)
class CapturedCode:
    """The same, with the texts that were digested."""

    commit: str
    patch: bytes  # what `git apply` makes of the commit the code that ran; empty where nothing differs
    distributions: bytes  # sorted lines NAME==VERSION

    @property
    def state(self) -> CodeState:
        """The digests."""
        diff = sha256_hex(self.patch) if self.patch else None
        return CodeState(self.commit, diff, sha256_hex(self.distributions))


@cache
def capture_code(root: Path | None) -> CapturedCode:
    """Capture the code below `root` as it is now; once per process, since that is what was imported."""
    commit, patch = (_NO_CODE, b"") if root is None else _read_repository(root)
    return CapturedCode(commit, patch, _list_distributions())


def _read_repository(root: Path) -> tuple[str, bytes]:
    try:
        commit = _git(root, "rev-parse", "--verify", "HEAD^{commit}").decode().strip()
        patch = _git(
            root,
            "diff",
            "HEAD",
            "--no-color",
            "--no-ext-diff",
            "--no-textconv",
            "--binary",
            "--relative",
            "--",
            ".",
        )
        untracked = _git(root, "ls-files", "-z", "--others", "--exclude-standard", "--", ".")
    except (OSError, subprocess.SubprocessError):
        return _NO_CODE, b""  # no repository, no commit yet, no git, or one that does not answer
    names = sorted(os.fsdecode(name) for name in untracked.split(b"\0") if name)
    added = b"".join(_patch_of_new(root, name) for name in names if name.endswith(_SOURCE_SUFFIXES))
    return commit, patch + added


def _git(root: Path, *arguments: str) -> bytes:
    # GIT_DIR and its like are set inside of hooks and would lead to another repository than that of `root`
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "--no-optional-locks", "-C", str(root), *arguments]
    return subprocess.run(
        command, capture_output=True, check=True, timeout=_GIT_TIMEOUT_S, env=environment
    ).stdout


def _patch_of_new(root: Path, name: str) -> bytes:
    """Write a new text file as `git diff` would."""
    try:
        lines = (root / name).read_bytes().split(b"\n")
    except OSError:
        return b""  # gone since it was listed
    ends = lines[-1] == b""
    body = lines[:-1] if ends else lines
    path = os.fsencode(name)
    head = b"diff --git a/%b b/%b\nnew file mode 100644\n" % (path, path)
    if not body:
        return head
    head += b"--- /dev/null\n+++ b/%b\n@@ -0,0 +1,%d @@\n" % (path, len(body))
    return (
        head
        + b"".join(b"+%b\n" % line for line in body)
        + (b"" if ends else b"\\ No newline at end of file\n")
    )


def _list_distributions() -> bytes:
    """List what is installed by the names of its folders: a hundred times faster than reading metadata."""
    found = {"python": platform.python_version()}
    for folder in map(Path, sys.path):
        if _INSTALLED.intersection(folder.parent.parts):
            continue  # what a distribution brings along for itself, put on the path when it is imported
        try:
            names = [path.name for path in folder.iterdir()]
        except OSError:
            continue
        for name in names:
            match = _DIST_INFO.fullmatch(name)
            if match:  # the first on the path is the one that is imported
                found.setdefault(re.sub(r"[-_.]+", "-", match["name"]).lower(), match["version"])
    if not any(part in _INSTALLED for part in _OWN_FOLDER.parts):
        found["noria"] = f"{found.get('noria', '0')}+{_own_digest()[:16]}"  # run from its sources
    return "".join(sorted(f"{name}=={version}\n" for name, version in found.items())).encode()


def _own_digest() -> str:
    """Digest noria's own sources: run from a checkout, they change while the version does not."""
    names = []
    for folder, _, files in os.walk(_OWN_FOLDER):
        below = os.path.relpath(folder, _OWN_FOLDER)
        names += [each if below == "." else f"{below}/{each}" for each in files if each.endswith(".py")]
    digests = []
    for name in sorted(names, key=lambda each: each.split("/")):
        with open(f"{_OWN_FOLDER}/{name}", "rb") as file:  # noqa: PTH123 - hundreds, before the first run
            digests.append(f"{name} {sha256_hex(file.read())}")
    return sha256_hex("\n".join(digests).encode())
