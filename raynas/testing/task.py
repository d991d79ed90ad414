"""Conformance tests to inherit: what a task must do to be usable with RayNAS, in anyone's test suite.

A task of your own is checked by one class with two methods::

    from raynas.testing.task import TaskContract

    class TestMine(TaskContract):
        def make_data(self):
            return my_data()          # with task="my_pkg.task:MyTask"

        def make_network(self, data):
            return MyNet(data.classes)

pytest collects it; nothing here needs Ray to be started.
"""

from __future__ import annotations

import abc
import copy
import json
import math
from typing import Any

import torch
from torch import nn

from raynas.config.run import SearchConfig
from raynas.config.train import TrainConfig
from raynas.data.dataset import Data, from_arrays, to_arrays
from raynas.tasks.base import RankInfo, Task, task_of

__all__ = ["TaskContract"]

_CPU = torch.device("cpu")


class TaskContract(abc.ABC):
    """Inherit it under a name that begins with ``Test``."""

    batch_size = 16
    steps = 5
    """Steps of training that are compared; the data must have as many batches."""

    @abc.abstractmethod
    def make_data(self) -> Data:
        """A small data set that names the task."""

    @abc.abstractmethod
    def make_network(self, data: Data) -> nn.Module:
        """A small network for it; the same at every call under the same seed of torch."""

    def recipe(self) -> TrainConfig:
        """Training settings, all of them set."""
        preset = task_of(self.make_data()).preset
        settings = TrainConfig(preset=preset, epochs=2, batch_size=self.batch_size, precision="float32")
        return settings.resolved()

    def settings(self) -> SearchConfig:
        """Evaluation settings."""
        return SearchConfig(slices=3, batch_size=self.batch_size, bn_images=2 * self.batch_size)

    def _task(self) -> Task:
        return task_of(self.make_data())

    def _network(self) -> nn.Module:
        torch.manual_seed(0)
        return self.make_network(self.make_data())

    def test_the_data_name_the_task_also_after_a_journey_through_the_object_store(self) -> None:
        data = self.make_data()
        assert type(task_of(from_arrays(to_arrays(data)))) is type(task_of(data))

    def test_the_metric_has_a_name_and_a_direction(self) -> None:
        metric = self._task().metric
        assert metric.name and metric.mode in ("min", "max") and metric.examples
        worst, best = sorted((metric.of_means(0.0, 5.0), metric.of_means(1.0, 0.01)), reverse=metric.mode == "min")
        assert metric.span[0] <= min(worst, best) and max(worst, best) <= metric.span[1]

    def test_its_preset_is_one_of_its_presets(self) -> None:
        task = self._task()
        assert task.preset in task.presets
        task.check(self.recipe())

    def test_the_example_is_a_batch_that_the_network_takes(self) -> None:
        task, network = self._task(), self._network().eval()
        for batch in (1, 3):
            inputs = task.example(batch)
            assert len(inputs) == batch and inputs.device == _CPU
            network(inputs)
        assert len(task.example(2, self.recipe())) == 2

    def test_batches_depend_on_the_seed_and_the_step_alone(self) -> None:
        task, recipe = self._task(), self.recipe()

        def batches(seed: int) -> list[Any]:
            loader = task.train_loader(recipe, seed, RankInfo(), _CPU, False)
            return [loader.batch(step) for step in range(self.steps)]

        for one, two in zip(batches(0), batches(0), strict=True):
            assert torch.equal(one[0], two[0]) and torch.equal(one[1], two[1])

    def test_the_ranks_share_a_step(self) -> None:
        task, recipe = self._task(), self.recipe()
        alone = task.train_loader(recipe, 0, RankInfo(), _CPU, False)
        ranks = [task.train_loader(recipe, 0, RankInfo(rank, 2), _CPU, False) for rank in range(2)]
        assert {loader.epoch_steps for loader in ranks} == {alone.epoch_steps}
        sizes = [len(loader.batch(0)[0]) for loader in ranks]
        assert sizes[0] == sizes[1] and sum(sizes) == len(alone.batch(0)[0])
        first, second = (loader.batch(0)[1].flatten().sort().values for loader in ranks)
        together = torch.cat([first, second]).sort().values
        assert torch.equal(together, alone.batch(0)[1].flatten().sort().values), "the targets of a step are divided"

    def test_a_resumed_loader_gives_what_an_uninterrupted_one_gives(self) -> None:
        task, recipe, half = self._task(), self.recipe(), self.steps // 2

        def follow(resume: bool) -> list[float]:
            network = self._network().train()
            loader, losses = task.train_loader(recipe, 0, RankInfo(), _CPU, True), []
            for step in range(self.steps):
                if resume and step == half:
                    kept = {name: value.clone() for name, value in loader.state_dict().items()}
                    loader = task.train_loader(recipe, 0, RankInfo(), _CPU, True)
                    loader.load_state_dict(kept)
                torch.manual_seed(step)
                inputs, targets = loader.batch(step)
                losses.append(float(loader.loss(loader.forward(network, inputs), targets).detach()))
            return losses

        assert follow(resume=True) == follow(resume=False)

    def test_the_loss_is_finite_and_trains(self) -> None:
        task, network = self._task(), self._network().train()
        loader = task.train_loader(self.recipe(), 0, RankInfo(), _CPU, False)
        inputs, targets = loader.batch(0)
        loss = loader.loss(loader.forward(network, inputs), targets)
        assert loss.ndim == 0 and math.isfinite(float(loss.detach())) and loader.lr_scale(0) > 0
        loss.backward()
        assert any(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in network.parameters())

    def test_slices_are_the_same_for_everyone_and_cover_the_validation_data_once(self) -> None:
        task, settings = self._task(), self.settings()
        one, two = (task.validation_slices(settings, _CPU) for _ in range(2))
        assert one.slices == task.slices(settings) >= 1
        counts = []
        for number in range(one.slices):
            pairs = list(zip(one.batches(number), two.batches(number), strict=True))
            assert pairs and all(torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in pairs)
            counts.append(sum(a[1].numel() for a, _ in pairs))
        validation = task.batches(self.make_data().validation, self.batch_size, _CPU)
        whole = sum(targets.numel() for _, targets in validation)
        # The rows that a text is cut into may leave out its last words.
        assert min(counts) > 0 and 0.9 * whole <= sum(counts) <= 1.1 * whole
        with torch.no_grad():
            network = self._network().eval()
            for inputs in one.calibration():
                network(inputs)

    def test_the_score_of_a_split_is_within_the_span_of_the_metric(self) -> None:
        data, task, network = self.make_data(), self._task(), self._network().eval()
        before = copy.deepcopy(network.state_dict())
        sums, examples, state = torch.zeros(2), 0, None
        with torch.no_grad():
            for inputs, targets in task.batches(data.validation, self.batch_size, _CPU):
                found, state = task.evaluate_batch(network, inputs, targets, state)
                assert found.shape == (2,)
                sums, examples = sums + found, examples + targets.numel()
        correct, loss = (float(value) for value in sums)
        score = task.metric.of_means(correct / examples, loss / examples)
        assert 0 <= correct <= examples and task.metric.span[0] <= score <= task.metric.span[1]
        assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())

    def test_what_is_exported_runs_and_its_files_are_json(self) -> None:
        task = self._task()
        module, arguments = task.export_model(self._network().eval())
        with torch.no_grad():
            module.eval()(*arguments)
        assert all(name.endswith(".json") for name in task.export_files)
        json.dumps(dict(task.export_files))
