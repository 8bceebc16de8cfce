"""Scalars for TensorBoard, through TensorBoard's own event writer, which needs no torch."""

import time
from collections.abc import Mapping
from pathlib import Path

from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.summary.writer.event_file_writer import EventFileWriter

# Protocol buffers create their classes at import, so a type checker can't see them.
Summary = summary_pb2.Summary  # pyright: ignore[reportAttributeAccessIssue]
Message = event_pb2.Event  # pyright: ignore[reportAttributeAccessIssue]
SessionLog = event_pb2.SessionLog  # pyright: ignore[reportAttributeAccessIssue]


class EventLog:
    """Writes one folder of TensorBoard events."""

    def __init__(self, folder: Path) -> None:
        self._writer = EventFileWriter(str(folder))

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Add scalars by tag."""
        summary = Summary(value=[Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()])
        self._writer.add_event(Message(step=step, wall_time=time.time(), summary=summary))

    def restart(self, step: int) -> None:
        """Make TensorBoard ignore earlier events from this step on."""
        start = SessionLog(status=SessionLog.START)
        self._writer.add_event(Message(step=step, wall_time=time.time(), session_log=start))

    def flush(self) -> None:
        """Write buffered events to the file."""
        self._writer.flush()

    def close(self) -> None:
        """Flush, then stop the writer's thread."""
        self._writer.close()
