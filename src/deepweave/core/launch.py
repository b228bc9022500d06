"""The same command in several processes of this machine, by torchrun's own launcher."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import uuid
from collections.abc import Sequence
from pathlib import Path


def launch(count: int, command: Sequence[str]) -> int:
    """Run Python with a command in so many processes; the exit code of the first that failed.

    What the first process says is shown as it comes; what another says, if it is the first to
    fail. When one ends in an error the others are ended.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException, Std
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    for name in logging.root.manager.loggerDict:  # they tell more than a user can use
        if name.startswith("torch.distributed.elastic"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
    with tempfile.TemporaryDirectory() as folder:
        others: dict[int, Std] = dict.fromkeys(range(1, count), Std.ERR)
        config = LaunchConfig(
            1, 1, count,
            run_id=str(uuid.uuid4()),
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",  # a free port, chosen by the system
            max_restarts=0,
            monitor_interval=0.1,
            logs_specs=DefaultLogsSpecs(log_dir=folder, redirects=others),
        )  # fmt: skip
        try:
            elastic_launch(config, sys.executable)(*command)
        except ChildFailedError as error:
            rank, failure = error.get_first_failure()
            for path in Path(folder).rglob(f"{rank}/stderr.log"):
                sys.stderr.write(path.read_text(errors="replace"))
            if failure.exitcode < 0:
                print(  # noqa: T201
                    f"deepweave: process {rank} of {count} was ended by signal "
                    f"{-failure.exitcode}; go on with: deepweave resume FOLDER", file=sys.stderr,
                )  # fmt: skip
            return failure.exitcode if failure.exitcode > 0 else 1
        except SignalException as signal:
            return 128 + signal.sigval
    return 0
