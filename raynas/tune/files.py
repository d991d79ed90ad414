"""The files of Ray Tune: its own records in the folder of the run, and a folder for what does not outlive a search."""

from __future__ import annotations

import atexit
import logging
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from logging.handlers import RotatingFileHandler
from pathlib import Path

from raynas.exceptions import ConfigError
from raynas.storage.locks import abandoned_folders, process_folder
from raynas.storage.removal import MARKER, make_folder, own, remove_tree, scratch

__all__ = ["TUNE_LOG", "scratch_folder", "tune_log"]

TUNE_LOG = Path("logs") / "tune.log"
"""Where in the folder of a run Tune's warnings and errors are."""
_TUNE = "ray.tune"
_SILENT = ("ray.tune.execution.tune_controller", "ray.tune.tune")
"""The log keeps what went wrong in a trial; a page of traceback each would push everything else off the screen."""
_LARGEST = 10_000_000


class _Screen(logging.Handler):
    """Shows what would be shown without us: what is no warning to Ray's own logger stays in the file."""

    def emit(self, record: logging.LogRecord) -> None:
        """Pass it on."""
        above = logging.getLogger("ray")
        if above.isEnabledFor(record.levelno):
            above.callHandlers(record)


@contextmanager
def tune_log(run: Path) -> Iterator[None]:
    """Write what Tune warns of into a file below the folder of a run; a part of it is not shown on the screen."""
    path = run / TUNE_LOG
    make_folder(path.parent)
    handler = RotatingFileHandler(path, maxBytes=_LARGEST, backupCount=1, encoding="utf-8", delay=True)
    handler.setLevel(logging.WARNING)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    loggers = [logging.getLogger(name) for name in (_TUNE, *_SILENT)]
    before = [(logger.level, logger.propagate) for logger in loggers]
    screen = _Screen()
    loggers[0].addHandler(screen)
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.WARNING)
        logger.propagate = False
    try:
        yield
    finally:
        loggers[0].removeHandler(screen)
        for logger, (level, propagates) in zip(loggers, before, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)
            logger.propagate = propagates
        handler.close()
        with suppress(OSError):
            if all(each.name == MARKER for each in path.parent.iterdir()):
                remove_tree(path.parent)


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder below the system's temporary one, removed in the end; those of processes that were killed go first.

    Raises:
        ConfigError: Somebody else has made the folder in which they are.
    """
    base = _private(Path(tempfile.gettempdir()) / f"raynas-tune-{os.getuid()}")
    for dead in abandoned_folders(base):
        _remove(dead)
    mine = process_folder(base)
    own(mine)  # in a run of weeks something may have tidied up
    atexit.register(_remove, mine)
    with scratch("search-", mine) as folder:
        yield folder


def _remove(folder: Path) -> None:
    with suppress(OSError):
        remove_tree(folder)


def _private(folder: Path) -> Path:
    """A folder that nobody else can write into; whoever may write into the temporary folder may have made it."""
    folder.mkdir(mode=0o700, exist_ok=True)
    facts = folder.lstat()
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.getuid() or facts.st_mode & 0o022:
        raise ConfigError(f"{folder} is not this user's own folder: remove it, or name another place by TMPDIR")
    return folder
