"""Find a network: ``python -m raynas.launch [command] [options] [key=value ...]``.

    python -m raynas.launch                                        digits, on this machine, in minutes
    python -m raynas.launch --data cifar10 data.folder=~/data --space spaces.shufflenet:spos_32 limits.macs=20e6
    python -m raynas.launch --space spaces.nasbench201:DECISIONS search.trainable=trainables.table:Table
        search.trainable_args.file=scores.parquet search.trainable_args.metric=accuracy     from a table, no network
    python -m raynas.launch --config run.yaml --address auto       the same on a cluster
    python -m raynas.launch --resume                               goes on with the newest run
    python -m raynas.launch --resume auto --name mine ...          starts it, or goes on: the same line every time
    python -m raynas.launch retrain --resume --name my-run         one more step for a run that is there

Exit codes: 0; 1: it failed, or there is a bug, whose traceback is in the file that the message names; 2: bad input;
130, 143: interrupted.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

from raynas.cli import native_stderr
from raynas.cli.arguments import is_key, read_arguments
from raynas.cli.doctor import doctor
from raynas.cli.errors import BAD_INPUT, one_line, write_traceback
from raynas.cli.help import help_text
from raynas.cli.watch import watch_run
from raynas.config.trust import foreign
from raynas.distributed import health as watch
from raynas.distributed.connection import LOOPBACK, Terminated, connect, token_place
from raynas.exceptions import ClusterLostError, ConfigError, ExportError, LeaseLostError
from raynas.report.page import write_report
from raynas.runs.dry_run import dry_run
from raynas.runs.factory import prepare
from raynas.runs.phases.retraining import check_room_to_retrain, check_trained
from raynas.runs.rank import rank
from raynas.runs.run import Run
from raynas.storage.locks import lock_folder
from raynas.storage.object_store import open_sync
from raynas.utils.user_code import validating

__all__ = ["execute", "main"]


def _architecture(run: Run, given: str | None) -> dict[str, str]:
    if given is None:
        return run.best()
    if is_key(given):
        return run.find(given)
    try:
        text = given if given.lstrip().startswith("{") else Path(given).read_text(encoding="utf-8")
        found = json.loads(text)
    except ValueError:
        raise ConfigError(f"--architecture {given!r} is neither a key, nor JSON, nor a file that holds it") from None
    if not isinstance(found, dict):
        raise ConfigError(f"--architecture {given!r} must hold an object: one option for each decision")
    return run.check(found)


def execute(command: str, run: Run, flags: argparse.Namespace) -> None:
    """Carry out one command; Ray is joined where it is needed."""
    after = list(run.config.after) if command == "search" else [command]
    failed: Exception | None = None
    dashboard = flags.dashboard_host or (LOOPBACK if flags.dashboard else None)
    if command in ("search", "train-supernet", "retrain"):
        run.context.storage.check()
        run.view.say(f"{command}: everything is kept in {run.place}")
        run.open()  # before Ray starts, which takes a while: a run that is killed meanwhile can go on
        if not flags.verbose:
            native_stderr.redirect(run.folder)
        url = connect(run.config, dashboard, flags.verbose)
        if dashboard and url:
            run.view.say(f"dashboard: {url} (it asks for the token {token_place()})")
    if command == "search":
        if run.has_network and "retrain" in after:
            check_room_to_retrain(run.context)
        run.search()
        after = run.affordable(after)
    if command == "rank":
        rank(run, dashboard, flags.verbose)
        after = ["report"]
    if command == "train-supernet":
        run.train_supernet()
    try:
        _after_search(run, after, flags.architecture)
    except LeaseLostError:
        raise  # the folder is another process's now
    except Exception as error:  # what was found before is in the report
        failed = error
    if "report" in after:
        run.view.say(f"report: {run.context.storage.shown(run.report())}")
    if failed is not None:
        raise failed


def _after_search(run: Run, steps: Sequence[str], architecture: str | None) -> None:
    """Retrain and export, where these are among the steps and the space has a network."""
    if not run.has_network:
        left_out = [step for step in steps if step in ("retrain", "export")]
        if left_out:
            run.view.say(f"no {' and no '.join(left_out)}: the space has no network")
        return
    if "retrain" in steps:
        run.retrain(_architecture(run, architecture))
    if "export" in steps:
        run.export(_architecture(run, architecture))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0, 1 (it failed), 2 (bad input), 130 or 143 (interrupted)."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # your own packages, also when started as a script
    run: Run | None = None
    verbose = False
    try:
        given = sys.argv[1:] if arguments is None else list(arguments)
        text = help_text(given)
        if text is not None:
            print(text)
            return 0
        command, config, flags = read_arguments(given)
        verbose = flags.verbose
        if command == "report":
            print(f"report: {_report(config.storage_path, str(config.name))}")
            return 0
        if command == "watch":
            watch_run(config.storage_path, str(config.name))
            return 0
        if command == "doctor":
            return doctor(config, trust=flags.trust, verbose=verbose)
        run = prepare(config, trust=flags.trust)
        if command not in ("search", "rank") and not run.has_network:
            legal = "search, rank, report"
            raise ConfigError(f"{command} needs a network, but {config.space} is bare decisions; legal: {legal}")
        if command in ("retrain", "export"):
            chosen = _architecture(run, flags.architecture)
            if command == "export":
                check_trained(run.context, chosen)
        if flags.dry_run:
            dry_run(run)
            return 0
        if command == "search":
            run.preflight(run.config.after)
        run.context.attach()
    except KeyboardInterrupt:
        return 130
    except ClusterLostError as error:
        return _failed(error, 1, verbose, run)
    except Exception as error:
        return _failed(error, 2 if isinstance(error, BAD_INPUT) else 1, verbose, run)
    return _carry_out(command, run, flags)


def _carry_out(command: str, run: Run, flags: argparse.Namespace) -> int:
    """Carry out a command on a run and close the run; returns the exit code."""
    begun = run.context.begun
    resume = f"python -m raynas.launch --resume {run.place}" + (" --trust" if foreign(run.config) else "")
    try:
        with _alone(run) if command in ("search", "train-supernet", "retrain") else nullcontext():
            execute(command, run, flags)
        run.send()
    except KeyboardInterrupt as stop:
        print(f"\nstopped; go on with: {resume}", file=sys.stderr)
        return 143 if isinstance(stop, Terminated) else 130
    except LeaseLostError as error:
        return _failed(error, 1, flags.verbose, run)
    except Exception as error:
        # Whatever happened on the cluster: one line, where the work is if there is any, and the rest on request.
        refused = isinstance(error, ConfigError)
        died = None if refused else watch.lost()  # it may have been said in words of Ray that help nobody
        code = _failed(ClusterLostError(died) if died else error, 2 if refused else 1, flags.verbose, run)
        if run.context.begun and not (refused and begun):
            go_on = "" if isinstance(error, ExportError) else f"; go on with: {resume} (-v shows more)"
            print(f"what was computed is kept in {run.place}{go_on}", file=sys.stderr)
        return code
    finally:
        if watch.found() is None:
            run.close()
        else:
            run.context.storage.close()  # sends its files; what has died cannot be asked to end anything
    return 0


@contextmanager
def _alone(run: Run) -> Iterator[None]:
    """Nobody else is at work in the folder of a run, from its settings to the end of the command."""
    run.context.storage.check()
    run.folder.mkdir(parents=True, exist_ok=True)
    with lock_folder(run.folder):
        yield


def _report(storage_path: str, name: str) -> str:
    """Write the page of a run that is there; returns where it is kept."""
    sync = open_sync(storage_path, name)
    with validating():
        page = write_report(Path(storage_path).expanduser() / name if sync is None else sync.folder)
    if sync is None:
        return str(page)
    sync.push()
    return f"{sync.uri}/{page.name}"


def _failed(error: BaseException, code: int, verbose: bool, run: Run | None) -> int:
    """Say what went wrong in one line; of what may be a bug, with the file that holds the traceback."""
    if verbose:
        traceback.print_exception(error)
    text = one_line(error)[:2000]
    if not isinstance(error, BAD_INPUT):
        file = write_traceback(error, None if run is None else run.folder)
        text = f"{text} ({type(error).__name__}; the traceback is in {file})"
    print(f"error: {text}", file=sys.stderr)
    return code
