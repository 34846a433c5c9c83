"""Atomic files: complete or absent, with the permissions that were asked for."""

from __future__ import annotations

import errno
import os
import stat
import sys
from pathlib import Path

import pytest

from ad_service.storage.files import atomic_writer, disk_errors, remove_drafts
from ad_service.storage.settings import AlreadyRunningError, Settings, one_service
from blender_addon.wire import WireError


def test_a_file_appears_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    with atomic_writer(path) as file:
        file.write(b"complete")
        assert not path.exists()
    assert path.read_bytes() == b"complete"
    assert list(path.parent.iterdir()) == [path]


def test_an_error_keeps_the_old_file_and_leaves_no_draft(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(KeyError), atomic_writer(path) as file:
        file.write(b"half")
        raise KeyError
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
@pytest.mark.parametrize(("mode", "expected"), [(0o600, 0o600), (0o666, 0o640)])
def test_a_file_has_its_mode_less_the_umask(tmp_path: Path, mode: int, expected: int) -> None:
    before = os.umask(0o027)
    try:
        with atomic_writer(tmp_path / "file", mode=mode):
            pass
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == expected


@pytest.mark.parametrize("keep_in_use", [True, False])
def test_a_file_in_use_on_windows_is_kept_only_if_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep_in_use: bool
) -> None:
    def in_use(source: Path, target: Path) -> Path:
        raise PermissionError(errno.EACCES, "The process cannot access the file")

    path = tmp_path / "file"
    path.write_bytes(b"old")
    monkeypatch.setattr(Path, "replace", in_use)
    try:
        with atomic_writer(path, keep_in_use=keep_in_use) as file:
            file.write(b"new")
    except PermissionError:
        assert not keep_in_use
    else:
        assert keep_in_use
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_only_a_durable_file_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(Path(f"/proc/self/fd/{descriptor}").readlink()))
    with atomic_writer(tmp_path / "cache"):
        pass
    assert synced == []
    with atomic_writer(tmp_path / "new" / "folder" / "result", durable=True):
        pass
    names = [path.relative_to(tmp_path) for path in synced]
    assert names[0].name.startswith(".incoming-")
    assert [str(name) for name in names[1:]] == ["new/folder", "new", "."], "each folder that has a new name in it"


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP])
def test_a_file_system_without_fsync_is_not_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def unsupported(_: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", unsupported)
    with atomic_writer(tmp_path / "file", durable=True) as file:
        file.write(b"complete")
    assert (tmp_path / "file").read_bytes() == b"complete"


def test_a_draft_is_hidden_and_a_young_one_is_kept(tmp_path: Path) -> None:
    with atomic_writer(tmp_path / "file"):
        (draft,) = tmp_path.iterdir()
        assert draft.name.startswith(".")
        assert remove_drafts(tmp_path, older_than=60) == 0
    (tmp_path / draft.name).touch()
    assert remove_drafts(tmp_path) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_service_removes_drafts_of_a_killed_one_but_not_of_a_running_one(tmp_path: Path) -> None:
    settings = Settings(tmp_path)
    drafts = [tmp_path / ".incoming-with-the-token", tmp_path / "incoming-of-version-0.1"]
    for draft in drafts:
        draft.touch()
    with one_service(settings):
        assert not any(draft.exists() for draft in drafts)
        drafts[0].touch()
        with pytest.raises(AlreadyRunningError), one_service(settings):
            pass
        assert drafts[0].exists()


def test_a_full_disk_is_an_error_of_the_contract_and_others_are_not(tmp_path: Path) -> None:
    with pytest.raises(WireError, match=str(tmp_path)) as caught, disk_errors(tmp_path):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert (caught.value.code, caught.value.data) == ("disk-full", {"folder": str(tmp_path)})
    with pytest.raises(IsADirectoryError), disk_errors(tmp_path):
        raise IsADirectoryError(errno.EISDIR, "Is a directory")
