"""A second Python process whose strings have other hashes, for tests that results do not depend on them."""

from __future__ import annotations

import functools
import os
import subprocess
import sys

__all__ = ["run_in_other_process"]

_LOOP = """
import json, sys
from ray import cloudpickle
answers, sys.stdout = sys.stdout, sys.stderr  # what a function prints is not its answer
while True:
    try:
        function, arguments = cloudpickle.load(sys.stdin.buffer)
    except EOFError:
        break
    print(json.dumps(function(*arguments)), file=answers, flush=True)
"""


def run_in_other_process(task: bytes) -> bytes:
    """Call a function there; all calls of a test run share one process, which ends with this one.

    Args:
        task: A function and its arguments, ``(function, arguments)``, pickled with ``ray.cloudpickle``.

    Returns:
        The result as a line of JSON.

    Raises:
        RuntimeError: The function failed; the process has printed the traceback.
    """
    process = _process()
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(task)
    process.stdin.flush()
    answer = process.stdout.readline()
    if not answer:
        _process.cache_clear()
        raise RuntimeError("the other process has failed: see its traceback")
    return answer


@functools.cache
def _process() -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONHASHSEED": "4711", "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        [sys.executable, "-c", _LOOP], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    )
