"""Keeps the credentials of this process out of what Ray writes down."""

from __future__ import annotations

import contextlib
import logging
import os
import re
from collections.abc import Iterator

import ray
from ray.tune.execution import class_cache

from raynas._compat import replaced

__all__ = ["kept_out"]

log = logging.getLogger(__name__)
_CREDENTIAL = re.compile(r"AWS_|KEY|TOKEN|SECRET|PASSW|CREDENTIAL", re.IGNORECASE)
_COPIED = "ENV_VARS_TO_PROPAGATE"
"""Tune's list of variables of which it gives every trial a copy."""


@contextlib.contextmanager
def kept_out() -> Iterator[None]:
    """What Tune starts in here is not sent the credentials of this process.

    Tune copies ``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY`` and ``AWS_SESSION_TOKEN`` into the runtime environment
    of every trial, and Ray logs that on every node, readable by everyone. A trial needs none of them: it has the
    environment of its node, and a node that cannot write into the storage with that is refused before the search.
    """
    copied = getattr(class_cache, _COPIED, None)
    if copied is None:
        given = sorted(name for name in os.environ if name.startswith("AWS_") and _CREDENTIAL.search(name[4:]))
        if given:
            log.warning(
                "Ray %s may write %s into its logs: see raynas.distributed.credentials",
                ray.__version__,
                ", ".join(given),
            )
        yield
        return
    with replaced(class_cache, _COPIED, {name for name in copied if not _CREDENTIAL.search(name)}):
        yield
