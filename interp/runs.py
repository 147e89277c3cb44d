"""Files that survive: atomic writes, and a run directory that a killed run can resume.

A run directory belongs to one configuration. Results are small records, each written once and atomically; what is
there when a run starts again is read, not computed. Tensors go to safetensors, everything else to JSON.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from interp.errors import InputError
from interp.records import dumps, from_dict, loads, to_dict

T = TypeVar("T")


def cache_dir() -> Path:
    """Where trained models and other derived files live: $INTERP_CACHE, else ~/.cache/interp."""
    return Path(os.environ.get("INTERP_CACHE") or Path.home() / ".cache" / "interp")


def fingerprint(config: Any) -> str:
    """16 hex digits of the SHA-256 of a JSON-serialisable config, keys sorted."""
    text = json.dumps(config, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def git_commit() -> str:
    """The commit of the checkout this package runs from, "-dirty" behind it where the package differs from it.

    "" where it is not a checkout.
    """
    package = Path(__file__).parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(package), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.strip()

    try:
        head = git("rev-parse", "--short=12", "HEAD")
        return f"{head}-dirty" if git("status", "--porcelain", "--untracked-files=normal", "--", ".") else head
    except (OSError, subprocess.SubprocessError):
        return ""


@cache
def source_hash(*names: str) -> str:
    """16 hex digits over the source that results come from: this package without what only draws them.

    Args:
        names: only these files of the package, by path, for a result that no other code has part in.
    """
    root = Path(__file__).parent
    files = [root / name for name in names] if names else sorted(root.rglob("*.py"))
    files = [p for p in files if p.relative_to(root).parts[0] != "plots"]
    parts = [f"{p.relative_to(root).as_posix()}\0{p.read_text(encoding='utf-8')}" for p in files]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def versions() -> dict[str, str]:
    """Versions of the packages that a number can depend on. Reads metadata only, imports nothing."""
    return dict(_versions())


@cache
def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    names = ("interp", "torch", "transformers", "transformer-lens", "trl", "peft", "scikit-learn", "plotly")
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`; on success it replaces `path` in one step, on failure it is removed.

    Raises:
        InputError: the folder cannot be written, or the disk is full.
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"cannot write {path}: {reason}") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def copy(source: Path, path: Path) -> None:
    """Copy a file atomically."""
    with atomic_path(path) as temporary:
        shutil.copyfile(source, temporary)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically (UTF-8)."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, data: Any) -> None:
    """Write plain JSON types atomically. NaN is refused."""
    write_text(path, json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file. Raises InputError naming the file where it is missing or not JSON."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"no such file: {path}") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not JSON: {error}") from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error


class Run:
    """A run directory for one configuration: records by name, generations by part, resume for free.

    `config.json` holds the configuration; opening the folder with another one is refused, so that results of two
    configurations never mix. `records/<name>.json` holds one record each.
    """

    def __init__(self, path: Path, config: dict[str, Any]) -> None:
        """Open or create a run directory.

        Raises:
            InputError: the folder cannot be written, holds other files, or holds a run of another configuration.
        """
        self.path = Path(path)
        self.config = json.loads(json.dumps(config, default=str))
        file = self.path / "config.json"
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"expected a folder for the run, got a file: {self.path}")
        if file.exists():
            theirs = read_json(file)
            if theirs != self.config:
                theirs = theirs if isinstance(theirs, dict) else {}
                keys = sorted(k for k in {*theirs, *self.config} if theirs.get(k) != self.config.get(k))
                raise InputError(
                    f"{self.path} holds another run (different: {', '.join(keys)}); choose another --out, or delete it"
                )
        else:
            if self.path.is_dir() and any(p for p in self.path.iterdir() if not p.name.startswith(".") and p != file):
                raise InputError(f"{self.path} is not empty and holds no run (no config.json); choose another --out")
            write_json(file, self.config)

    def _file(self, name: str) -> Path:
        return self.path / "records" / f"{name}.json"

    def has(self, name: str) -> bool:
        """Whether this record was already computed."""
        return self._file(name).exists()

    def save(self, name: str, record: Any) -> None:
        """Write one record atomically."""
        write_text(self._file(name), dumps(record) + "\n")

    def load(self, name: str, kind: type[T]) -> T:
        """Read one record. Raises InputError where it is missing or damaged."""
        file = self._file(name)
        try:
            return loads(kind, file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise InputError(f"no such record: {file}") from None
        except InputError as error:
            raise InputError(f"{file}: {error}; delete it and run again") from error

    def save_all(self, name: str, records: Iterable[Any]) -> None:
        """Write a list of records as one JSON-lines file, atomically."""
        lines = [json.dumps(to_dict(r), ensure_ascii=False, allow_nan=False) for r in records]
        write_text(self.path / f"{name}.jsonl", "".join(line + "\n" for line in lines))

    def load_all(self, name: str, kind: type[T]) -> list[T]:
        """Read a JSON-lines file of records; a missing file is an empty list."""
        file = self.path / f"{name}.jsonl"
        if not file.exists():
            return []
        # Not splitlines(): a text may hold U+2028, at which that would break a line of JSON.
        lines = file.read_text(encoding="utf-8").split("\n")
        try:
            return [from_dict(kind, json.loads(line)) for line in lines if line.strip()]
        except (json.JSONDecodeError, InputError) as error:
            raise InputError(f"{file} is damaged: {error}; delete it and run again") from error
