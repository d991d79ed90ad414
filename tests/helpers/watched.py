"""A program that runs searches on a Ray of its own, and tells who could have reached it and what it wrote down.

python watched.py FOLDER SECRET ...     the last line is JSON
"""

from __future__ import annotations

import json
import stat
import sys
import threading
import time
from pathlib import Path

import ray
from ray._private.utils import psutil  # Ray's own

from raynas.cli.main import main
from raynas.distributed.local_ray import private_folder

TINY = "--space helpers.tiny:space --data helpers.tiny:arrays data.limit=300 train.epochs=1 train.batch_size=64"
COMMANDS = (
    "--name thin train.workers=2 search.replicas=2 search.num_samples=4 search.slices=1 "
    "after=[retrain] retrain.workers=2 retrain.epochs=1",
    "--name scratch search.trainable=trainables.from_scratch:FromScratch search.num_samples=2 search.epochs=1 after=[]",
)


class Watch(threading.Thread):
    """Collects the addresses at which this process and all that it has started listen."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.sockets: set[tuple[str, str]] = set()
        self.ended = threading.Event()

    def run(self) -> None:
        """Look again and again."""
        while not self.ended.wait(1.0):
            self.look()

    def look(self) -> None:
        """Look once."""
        me = psutil.Process()
        for process in [me, *me.children(recursive=True)]:
            try:
                for each in process.net_connections(kind="inet"):
                    if each.status == psutil.CONN_LISTEN:
                        self.sockets.add((process.name(), each.laddr.ip))
            except psutil.Error:
                pass  # it has ended meanwhile


def holds(path: Path, secrets: list[bytes]) -> list[str]:
    """The secrets that a file holds."""
    try:
        content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
    except OSError:
        return []
    return [f"{path}: {secret.decode()}" for secret in secrets if secret in content]


if __name__ == "__main__":
    folder, secrets = Path(sys.argv[1]), [secret.encode() for secret in sys.argv[2:]]
    watch = Watch()
    watch.start()
    codes = [main([*words.split(), *TINY.split(), "--storage-path", str(folder), "--dashboard"]) for words in COMMANDS]
    time.sleep(1)  # Ray writes its logs a little later
    watch.look()
    watch.ended.set()
    place = Path(private_folder()).parent
    written = [path for where in (folder, place) for path in where.rglob("*")]
    told = {
        "codes": codes,
        "sockets": sorted(watch.sockets),
        "files": len(written),
        "agent": sum(path.stat().st_size for path in written if path.name == "runtime_env_agent.log"),
        "found": [line for path in written for line in holds(path, secrets)],
        "place": str(place),
        "mode": stat.S_IMODE(place.stat().st_mode),
        "inside": ray._private.worker._global_node.get_session_dir_path().startswith(str(place)),
    }
    print(json.dumps(told))
