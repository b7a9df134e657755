"""Places that can't be written, for the process that calls this: also for root, to whom permissions mean nothing."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

NEW_MOUNTS, NEW_USER = 0x20000, 0x10000000
READ_ONLY, REMOUNT, BIND, RECURSIVE, PRIVATE = 1, 32, 4096, 16384, 1 << 18
OVERRIDE_PERMISSIONS = (1, 2)
"""Capabilities by which root writes where permissions forbid it."""


def mount_read_only(folders: Sequence[Path]) -> None:
    """Mount folders read-only, for this process alone.

    Raises:
        OSError: this process may not.
    """
    _own_mounts()
    for folder in folders:
        _mount(str(folder), str(folder), BIND)
        _mount(None, str(folder), REMOUNT | BIND | READ_ONLY)


def mount_small(folders: Mapping[Path, int]) -> None:
    """Mount an empty disk of a few bytes at each folder, for this process alone.

    Raises:
        OSError: this process may not.
    """
    _own_mounts()
    for folder, size in folders.items():
        _mount("tmpfs", str(folder), 0, "tmpfs", f"size={size}")


def obey_permissions() -> None:
    """Let permissions hold for this process, even if it is root's."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    sets = (ctypes.c_uint32 * 6)()
    if libc.capget(header, sets) != 0:
        raise OSError(ctypes.get_errno(), "capget")
    for capability in OVERRIDE_PERMISSIONS:
        for held in (0, 1, 2):  # effective, permitted, inheritable
            sets[held] &= ~(1 << capability)
    if libc.capset(header, sets) != 0:
        raise OSError(ctypes.get_errno(), "capset")


def forbid_writing(folder: Path) -> None:
    """Take the permission to write from a folder and all in it."""
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode & ~0o222)


@cache
def may_mount() -> bool:
    """Whether a process here may have mounts of its own."""
    process = multiprocessing.get_context("spawn").Process(target=_own_mounts)
    process.start()
    process.join()
    return process.exitcode == 0


def _own_mounts() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.getuid(), os.getgid()
    if libc.unshare(NEW_MOUNTS) != 0:
        if libc.unshare(NEW_MOUNTS | NEW_USER) != 0:
            raise OSError(ctypes.get_errno(), "unshare")
        with suppress(OSError):
            Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    _mount(None, "/", RECURSIVE | PRIVATE)


def _mount(source: str | None, target: str, flags: int, kind: str | None = None, options: str | None = None) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    encoded = [text if text is None else os.fsencode(text) for text in (source, target, kind, options)]
    if libc.mount(encoded[0], encoded[1], encoded[2], ctypes.c_ulong(flags), encoded[3]) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"mount: {os.strerror(error)}", target)
