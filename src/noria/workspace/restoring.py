"""The code of a recorded run, put back into a folder of its own.

From git: a worktree of the recorded commit with the recorded diff. Without git: the sources that were kept
with the step, which are all that it reached.
"""

import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from noria.errors import ConfigError, NotFound
from noria.pipelines.recipes import read_recipe
from noria.pipelines.store import PipelineStore
from noria.records import Run, sha256_hex

if TYPE_CHECKING:
    from noria.workspace.project import Project

__all__ = ["Restored", "restored", "run_git"]

_GIT_TIMEOUT_S = 120.0
_NO_CODE = "none"


@dataclass(frozen=True, slots=True)
class Restored:
    """A project's folder as it was, and where it came from."""

    root: Path
    told: str


@contextmanager
def restored(project: "Project", steps: Sequence[Run]) -> Iterator[Restored]:
    """Put the code of steps of one run into a temporary folder for the block; its stores are the project's.

    Raises
    ------
    ConfigError
        If neither git nor the record has it.
    """
    files = {name: source for step in steps for name, source in _kept_files(project, step).items()}
    with tempfile.TemporaryDirectory(prefix="noria-code-") as folder, ExitStack() as stack:
        made = _from_git(project, steps[0], Path(folder) / "code", stack)
        if made is None or not _is_as_kept(project, made.root, files):
            why = "no commit is on record" if made is None else "the recorded commit says something else"
            made = _from_record(project, files, Path(folder) / "kept", why)
        _link_stores(project, made.root)
        yield made


def _from_git(project: "Project", step: Run, place: Path, stack: ExitStack) -> Restored | None:
    """Check out the recorded commit with the recorded diff on top; None if git does not have the project."""
    if step.code == _NO_CODE or run_git(project.root, "cat-file", "-e", f"{step.code}^{{commit}}") is None:
        return None
    prefix = (run_git(project.root, "rev-parse", "--show-prefix") or b"").decode().strip()
    root = place / prefix
    stack.callback(run_git, project.root, "worktree", "prune")
    stack.callback(run_git, project.root, "worktree", "remove", "--force", str(place))
    if run_git(project.root, "worktree", "add", "--detach", "--force", str(place), step.code) is None:
        return None
    told = f"code: commit {step.code[:12]}"
    if step.code_diff is not None:
        patch = project.storage.get(step.code_diff)
        below = [f"--directory={prefix}"] if prefix else []  # the patch speaks of paths below the project
        if run_git(place, "apply", "--whitespace=nowarn", *below, "-", given=patch) is None:
            return None
        told += f" with the uncommitted changes of then ({len(patch):,} bytes)"
    return Restored(root, told) if (root / "noria.toml").is_file() else None


def _kept_files(project: "Project", step: Run) -> dict[str, str]:
    """Give the sources that were kept with a step: name -> sha256."""
    recipe = read_recipe(step, project.storage)
    files = PipelineStore(project.ledger.database, project.ledger.scope).known_code(recipe.code)
    if files is None:
        raise ConfigError(
            f"the code of run {step.id} is not on record: it was no step of the project, or is gone"
        )
    return {name: source for name, (_, source) in files.items()}


def _is_as_kept(project: "Project", root: Path, files: Mapping[str, str]) -> bool:
    return all(
        (root / name).is_file() and sha256_hex((root / name).read_bytes()) == source
        for name, source in files.items()
        if (project.root / name).is_file() or name.endswith(".py")
    )


def _from_record(project: "Project", files: Mapping[str, str], place: Path, why: str) -> Restored:
    """Write the sources that were kept with the step."""
    place.mkdir()
    for name, source in files.items():
        target = (place / name).resolve()
        if not target.is_relative_to(place.resolve()):
            raise ConfigError(
                f"{name!r} of the recorded code lies outside of the project; it cannot be restored"
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            target.write_bytes(project.storage.get(source))
        except NotFound as error:
            raise ConfigError(f"the source of {name!r} is gone from the storage: {error}") from error
    settings = place / "noria.toml"
    if not settings.exists():
        settings.write_bytes((project.root / "noria.toml").read_bytes())
    return Restored(place, f"code: the sources that were kept with the steps, {len(files)} in all ({why})")


def _link_stores(project: "Project", root: Path) -> None:
    """Let the folder find the project's stores, which are named relative to it."""
    stores = project.settings.stores
    paths = [
        stores.database.removeprefix("sqlite:///"),
        stores.storage,
        stores.online.partition(":")[2],
        stores.stream.partition(":")[2],
    ]
    for path in paths:
        if "://" in path or not path or Path(path).is_absolute():
            continue
        first = Path(path).parts[0]
        if not (root / first).exists() and (project.root / first).exists():
            (root / first).symlink_to(project.root / first)


def run_git(root: Path, *arguments: str, given: bytes | None = None) -> bytes | None:
    """Give what git prints for the repository of a folder; None if it fails, or is not there."""
    try:
        return _run(root, arguments, given)
    except (OSError, subprocess.SubprocessError):
        return None


def _run(root: Path, arguments: tuple[str, ...], given: bytes | None) -> bytes:
    # GIT_DIR and its like are set inside of hooks and would lead to another repository than that of `root`
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return subprocess.run(
        ["git", "-c", "core.hooksPath=/dev/null", "-C", str(root), *arguments],
        input=given,
        capture_output=True,
        check=True,
        timeout=_GIT_TIMEOUT_S,
        env=environment,
    ).stdout
