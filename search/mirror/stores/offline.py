"""What SwanLab's offline store has kept of an experiment.

Written against swanlab 0.10.3; `tests/search/mirror/test_worker.py` notices a version that differs.
"""

from __future__ import annotations

from pathlib import Path


def what_is_missing(run_dir: Path, epochs: int) -> str | None:
    """A sentence about what an offline run lacks; None where it has everything.

    SwanLab hides its own write errors, so a full disk shows only here.
    """
    from swanlab.proto.swanlab.record.v1.record_pb2 import Record
    from swanlab.sdk.internal.core_python.store import DataStoreReader

    files = list(run_dir.glob("run-*.swanlab"))
    if len(files) != 1:
        return f"SwanLab wrote {len(files)} record files instead of 1"
    kept, finished = 0, False
    reader = DataStoreReader()
    reader.open(files[0])
    try:
        for data in reader:
            record = Record()
            record.ParseFromString(data)
            kept += record.HasField("scalar") and record.scalar.key == "train/epoch"
            finished = finished or record.HasField("finish")
    finally:
        reader.close()
    if kept != epochs:
        return f"SwanLab kept {kept} of {epochs} epochs"
    return None if finished else "the experiment still counts as running"
