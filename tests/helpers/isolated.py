"""A machine within this machine: network, processes, home and shared memory of its own.

`ray stop`, `ray up` and `ray down` end every Ray process that they see; here they see their own alone. Nothing in it
reaches another machine, and all of it ends with it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = os.geteuid() == 0
PREPARE = """
ip link set lo up && mount -t tmpfs tmpfs /dev/shm && mkdir -p /tmp/ray && mount -t tmpfs tmpfs /tmp/ray &&
mount -t tmpfs tmpfs /run && mkdir /run/sshd && mount --bind "$1/passwd" /etc/passwd && touch "$1/ready" || exit
sleep 900 & wait $!  # and so buries what others leave behind
"""


class Machine:
    """Runs commands as root of its own; what they write into ``folder`` is seen outside."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.home = folder, folder / "home"
        self.home.mkdir(parents=True)
        users = Path("/etc/passwd").read_text(encoding="utf-8").replace(":/root:", f":{self.home}:", 1)
        (folder / "passwd").write_text(users, encoding="utf-8")
        kinds = ["--net", "--pid", "--mount", "--ipc"]
        if not ROOT:
            kinds = ["--user", "--map-root-user", *kinds]
        if shutil.which("unshare") is None or shutil.which("ip") is None:
            pytest.skip("needs unshare and ip to isolate a cluster: Debian's util-linux and iproute2")
        self._holder = subprocess.Popen(
            ["unshare", *kinds, "--fork", "--kill-child", "--mount-proc", "bash", "-c", PREPARE, "bash", str(folder)],
            stderr=subprocess.PIPE,
            text=True,
        )
        while not (folder / "ready").exists():
            if self._holder.poll() is not None:
                pytest.skip(f"needs the right to make namespaces: {self._holder.communicate()[1].strip()}")
            time.sleep(0.05)
        first = Path(f"/proc/{self._holder.pid}/task/{self._holder.pid}/children").read_text().split()[0]
        self._namespace = os.readlink(f"/proc/{first}/ns/pid")
        self._root = Path(f"/proc/{first}/root")
        enter = [] if ROOT else ["--user", "--preserve-credentials"]
        self._enter = ["nsenter", "--target", first, *enter, "--net", "--pid", "--mount", "--ipc", "--"]

    def _line(self, folder: Path, command: tuple[str | Path, ...]) -> list[str]:
        return [*self._enter, "sh", "-c", 'cd "$0" && exec "$@"', *map(str, (folder, *command))]

    def environment(self, **changes: str) -> dict[str, str]:
        """What a fresh login would have: nothing of the tests' own settings for Ray."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith("RAY_") and k != "PYTHONPATH"}
        path = f"{Path(sys.executable).parent}:{kept['PATH']}:/usr/sbin:/sbin"
        own = {"HOME": str(self.home), "PATH": path, "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}
        own["RAY_worker_niceness"] = "0"  # of 15: they would wait for the tests that run beside them
        return kept | own | changes

    def start(self, *command: str | Path, **environment: str) -> subprocess.Popen[str]:
        """Start a command and leave it running."""
        return subprocess.Popen(
            self._line(self.home, command),
            env=self.environment(**environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def run(
        self, *command: str | Path, folder: Path | None = None, fails: bool = False, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, which must be a good one unless it ``fails``."""
        done = subprocess.run(
            self._line(folder or self.home, command),
            env=self.environment(**environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=200,
        )
        assert (done.returncode != 0) == fails, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def path(self, inside: Path) -> Path:
        """What is mounted in it, seen from outside."""
        return self._root / inside.relative_to("/")

    def processes(self) -> dict[int, tuple[int, str]]:
        """All that runs in it: by the id outside, that of the parent, and the command line."""
        found = {}
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and os.readlink(entry / "ns" / "pid") == self._namespace:
                    parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                    found[int(entry.name)] = (parent, (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
            except OSError:
                continue  # it has just ended, or is another user's
        return found

    def close(self) -> None:
        """End it with all that runs in it."""
        self._holder.kill()
        self._holder.wait()


def install(*packages: str) -> None:
    """Install packages of Debian that are not there yet; skip where that cannot be."""
    if not ROOT or shutil.which("apt-get") is None:
        pytest.skip(f"needs {' and '.join(packages)} of Debian, and root to install them")
    # In a namespace for processes: a daemon that a package starts ends with the installation.
    apart = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update", "-qq"], ["install", "-qqy", "--no-install-recommends", *packages]):
        done = subprocess.run(
            [*apart, "apt-get", *command], env=environment, capture_output=True, text=True, timeout=200
        )
        if done.returncode:
            pytest.skip(f"cannot install {' and '.join(packages)}: {done.stderr.strip()[-300:]}")
