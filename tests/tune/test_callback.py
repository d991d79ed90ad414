"""What stands in the log of a search that was killed and goes on with a trainable that begins its trials anew."""

from __future__ import annotations

import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray import tune

from raynas.results.log import Log, read
from raynas.searchers.history import Origin
from raynas.tune.callback import Observers, Recorder, RowDetails
from raynas.tune.experiment import LoggedHistory
from raynas.tune.spec import EvaluationSpec

FORM = {"x": "a"}


def recorder(log: Log) -> Recorder:
    """As it is made at every start."""
    spec = EvaluationSpec(tune.Trainable, max_fidelity=4, ends_itself=False)
    made = Recorder(log, spec, RowDetails({"run": "run"}, lambda architecture: {"macs": 5.0}))
    log.flush()
    history = LoggedHistory(read(log.folder), lambda architecture: True)
    made.remember(history.ended.values(), 1, history.in_flight.values())
    return made


def report(to: Recorder, trial: Any, *fidelities: int) -> None:
    for fidelity in fidelities:
        result = {"score": float(fidelity), "training_iteration": fidelity, "time_total_s": 2.0 * fidelity, "extra": 1}
        to.on_trial_result(0, [], trial, result)


def trial(name: str) -> Any:
    return SimpleNamespace(trial_id=name, config={"architecture": FORM}, error_file=None)


def rows(folder: Path) -> list[tuple[Any, ...]]:
    return [(row["fidelity"], row["score"], row["status"]) for row in read(folder).to_pylist()]


@pytest.mark.parametrize("kills", [1, 2])
def test_a_report_stands_in_the_log_once(tmp_path: Path, kills: int) -> None:
    for number in range(kills):
        with Log(tmp_path) as log:  # and then it is killed
            report(recorder(log), trial(f"t{number}"), *range(1, number + 3))
    with Log(tmp_path) as log:
        last, begun = recorder(log), trial("last")
        report(last, begun, 1, 2, 3, 4)
        last.on_trial_complete(0, [], begun)
    assert rows(tmp_path) == [(1, 1.0, "running"), (2, 2.0, "running"), (3, 3.0, "running"), (4, 4.0, "complete")]
    assert last.counts.scored == 1


def test_one_that_is_stopped_earlier_this_time_has_one_last_row(tmp_path: Path) -> None:
    with Log(tmp_path) as log:
        report(recorder(log), trial("first"), 1, 2)
    with Log(tmp_path) as log:
        last, begun = recorder(log), trial("last")
        report(last, begun, 1)
        last.on_trial_complete(0, [], begun)
    assert rows(tmp_path) == [(1, 1.0, "running"), (2, 2.0, "running"), (2, 2.0, "stopped")]
    table = read(tmp_path).to_pylist()
    assert table[2]["time"] > table[1]["time"] and table[2]["macs"] == 5 and table[2]["metrics"] == table[1]["metrics"]
    assert dict(last.counts.stopped_at) == {2: 1}


def test_what_tune_saves_of_a_recorder_are_its_counts(tmp_path: Path) -> None:
    with Log(tmp_path) as log:
        last, begun = recorder(log), trial("last")
        report(last, begun, 1, 2, 3, 4)
        last.on_trial_complete(0, [], begun)
        saved = pickle.loads(pickle.dumps(last))  # its functions cannot be pickled
    assert isinstance(saved, tune.Callback) and saved.counts == last.counts and saved.counts.scored == 1


def test_observers_are_given_each_end(tmp_path: Path) -> None:
    ended: list[tuple[str, int]] = []
    spec = EvaluationSpec(tune.Trainable, max_fidelity=4, ends_itself=False)
    with Log(tmp_path) as log:
        observers = Observers(ended=lambda row, status: ended.append((row["status"], status.scored)))
        made = Recorder(log, spec, RowDetails({}, lambda architecture: {}, lambda key: Origin("given")), observers)
        begun = trial("t")
        report(made, begun, 1)
        made.on_trial_complete(0, [], begun)
    assert ended == [("stopped", 1)] and read(tmp_path).to_pylist()[0]["origin"] == "given"
