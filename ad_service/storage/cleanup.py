"""What the data folder keeps: the newest jobs, and their pictures within a budget of disk."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from ad_service.storage.blobs import BlobStore
from ad_service.storage.jobs import Jobs, blobs_of
from blender_addon.wire import JobStatus

MAX_BYTES = 20 * 10**9
FREE_SHARE = 0.1
"""The default budget for pictures is this share of the disk's space that they and nobody else could use, up to
MAX_BYTES."""


@dataclass(frozen=True)
class CleanupOptions:
    """What is kept.

    Attributes:
        jobs: newest jobs that have ended; the record forgets older ones.
        unused_seconds: how long a picture of no job is kept, since its job may not be submitted yet.
        grace_seconds: how long the pictures of a job are kept after their last use, even above the budget.
        draft_seconds: how long an unfinished file is kept after its last change.
    """

    jobs: int = 1000
    unused_seconds: float = 24 * 3600.0
    grace_seconds: float = 3600.0
    draft_seconds: float = 600.0


@dataclass(frozen=True)
class Usage:
    """The disk that pictures use: their number, their bytes, the budget, and what is free on the disk."""

    pictures: int
    bytes: int
    limit: int
    free: int


def usage(store: BlobStore, limit: int | None) -> Usage:
    """The present usage; `limit` is the budget in bytes, or None for the default."""
    files = store.files()
    used = sum(file.size for file in files)
    folder = next(folder for folder in (store.folder, *store.folder.parents) if folder.exists())
    free = shutil.disk_usage(folder).free
    return Usage(len(files), used, min(MAX_BYTES, int((used + free) * FREE_SHARE)) if limit is None else limit, free)


def bytes_of(store: BlobStore, jobs: Iterable[JobStatus], more: Iterable[str] = ()) -> int:
    """Bytes of the pictures of some jobs, and of `more` pictures, each counted once."""
    shas = set(more).union(*(blobs_of(status) for status in jobs))
    return sum(store.size(sha) for sha in shas)


def clean(store: BlobStore, jobs: Jobs, limit: int | None, options: CleanupOptions = CleanupOptions()) -> int:
    """Removes what is kept no longer, and returns the number of removed jobs and files.

    Above the budget, pictures of no job are removed first, then jobs that have ended with their pictures, oldest
    first. Pictures that a waiting or running job needs are never removed.
    """
    removed = store.remove_drafts(options.draft_seconds) + jobs.forget(options.jobs)
    uses = Counter(sha for status in jobs.newest(limit=-1) for sha in blobs_of(status))
    unused = [file.sha for file in store.files() if file.sha not in uses]
    removed += sum(bool(store.remove_unused(sha, options.unused_seconds)) for sha in unused)
    now = usage(store, limit)
    excess = now.bytes - now.limit
    for sha in unused:
        if excess > 0 and (freed := store.remove_unused(sha, options.grace_seconds)):
            excess, removed = excess - freed, removed + 1
    for job in jobs.ended_before(options.grace_seconds) if excess > 0 else ():
        if excess <= 0:
            break
        blobs = blobs_of(jobs.delete(job))
        uses.subtract(blobs)
        excess -= sum(store.remove_unused(sha, options.grace_seconds) for sha in blobs if uses[sha] <= 0)
        removed += 1
    jobs.compact()
    return removed


def delete_job(store: BlobStore, jobs: Jobs, job: str, options: CleanupOptions = CleanupOptions()) -> None:
    """Removes a job that has ended, and its pictures that no other job has.

    Inputs that were used shortly before are left to `clean`: a new job may be about to name them.

    Raises: WireError `not-found`, or `conflict` for a job that waits or runs.
    """
    deleted = jobs.delete(job)
    inputs = set(deleted.request["inputs"].values())
    for sha in blobs_of(deleted) - jobs.blobs():
        store.remove_unused(sha, options.draft_seconds if sha in inputs else 0.0)
