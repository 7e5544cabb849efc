"""Bytes that survive: atomic writes, a folder lock, a segment log. Besides SQLite the one place that syncs."""

from durable.disk import DISK, Disk
from durable.files import make_folder, publish, sweep, sync_folder, write_atomically
from durable.folder_lock import FolderLock
from durable.frames import Frame, read_frames
from durable.group_commit import GroupCommit
from durable.segment_log import LogFull, LogStopped, SegmentLog
from durable.segment_names import Gap, Segment

__all__ = [
    "DISK",
    "Disk",
    "FolderLock",
    "Frame",
    "Gap",
    "GroupCommit",
    "LogFull",
    "LogStopped",
    "Segment",
    "SegmentLog",
    "make_folder",
    "publish",
    "read_frames",
    "sweep",
    "sync_folder",
    "write_atomically",
]
