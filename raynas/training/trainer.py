"""Training the weights of a space, or of one plain network, in one process or in several side by side.

Everything that a step draws (images, augmentation, paths, dropout) is a function of the seed and the step number.
A checkpoint therefore needs the weights, the momentum and one number, and a resumed run equals one that was never
interrupted, bit for bit on the same machine, unless its schedule follows the clock (minutes, a budget that is short).
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import ray
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from raynas.architecture import Architecture
from raynas.config.train import TrainConfig
from raynas.data.dataset import Data
from raynas.exceptions import OptionDiverged, TrainingDiverged
from raynas.nn.forward_errors import exclusion_hint, text_of
from raynas.nn.subnet import derive
from raynas.tasks.base import RankInfo, task_of
from raynas.training.optimizers import load_optimizer_state, make_optimizer, optimizer_state
from raynas.training.path_sampling import PathSampler
from raynas.utils.seeds import seed_of

__all__ = [
    "Progress",
    "Trainer",
    "best_device",
    "dropping",
    "model_tensors",
    "place_model",
    "use_assigned_cpus",
    "use_bfloat16",
]


_MOST_SUSPECTS = 3
"""Where more options of a path are new, which is so in the first steps, none of them is suspected."""


@dataclass(frozen=True)
class Progress:
    """The state of a training after a chunk of steps."""

    step: int
    loss: float
    """Mean over the images of the chunk, on this rank."""
    images: int
    """Images, or words (times paths) that went through all ranks in the chunk."""
    seconds: float
    waited: float = 0.0
    """Of these seconds, those in which this rank waited for data."""

    @property
    def waiting(self) -> float:
        """Share of the time in which this rank waited for data."""
        return self.waited / self.seconds if self.seconds else 0.0

    def next_chunk(self, chunk: int, seconds: float) -> int:
        """Steps of the next chunk, so that it takes about ``seconds``; at most four times as many as this one's."""
        return max(round(chunk * min(seconds / max(self.seconds, 1e-3), 4.0)), 1)


def best_device() -> torch.device:
    """The GPU that Ray gave to this process, outside of Ray any, or the CPU."""
    given = not ray.is_initialized() or bool(ray.get_runtime_context().get_accelerator_ids().get("GPU"))
    return torch.device("cuda" if given and torch.cuda.is_available() else "cpu")


def use_assigned_cpus() -> None:
    """Compute with as many threads as Ray gave CPUs to this actor, at least one; outside of an actor: no change."""
    if ray.is_initialized() and ray.get_runtime_context().get_actor_id() is not None:
        cpus = ray.get_runtime_context().get_assigned_resources().get("CPU", 1)
        torch.set_num_threads(max(int(cpus), 1))


def place_model(model: nn.Module, device: torch.device) -> nn.Module:
    """Bring a model to its device, convolution weights in channels-last order: 1.4 to 2 times as fast, on CPUs too."""
    return model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def use_bfloat16(precision: str) -> bool:
    """Whether to compute under bfloat16 autocast: on request, or by itself on GPUs that have it."""
    on_gpu = best_device().type == "cuda"
    return precision == "bfloat16" or (precision == "auto" and on_gpu and torch.cuda.is_bf16_supported())


def dropping(model: nn.Module) -> list[nn.Module]:
    """The modules of a model that ``train.drop_path`` acts on: those with a number ``drop_path``."""
    return [module for module in model.modules() if isinstance(getattr(module, "drop_path", None), float)]


def model_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The model's own part of what :meth:`Trainer.state` returned."""
    return {name[len("model/") :]: value for name, value in tensors.items() if name.startswith("model/")}


class Trainer:
    """The training loop of one process.

    Args:
        model: A space (with ``paths``) or a plain network (without), on the CPU; it is moved to ``device``.
        data: Only ``data.train`` is touched.
        recipe: How to train; open settings are filled from its preset.
        paths: Which architectures a step trains, or None for a plain network.
        seed: Decides everything drawn.
        rank: Of this process, by default the only one; several need an initialised process group.
    """

    def __init__(
        self,
        model: nn.Module,
        data: Data,
        recipe: TrainConfig,
        paths: PathSampler | None = None,
        seed: int = 0,
        rank: RankInfo | None = None,
    ) -> None:
        self.recipe = recipe.resolved()
        assert self.recipe.epochs is not None
        rank = rank or RankInfo()
        self.rank, self.world = rank.rank, rank.world_size
        self.seed, self.paths, self.data = seed, paths, data
        self.device = best_device()
        self.model = place_model(model, self.device).train()
        self.bfloat16 = use_bfloat16(self.recipe.precision)
        self.loader = task_of(data).train_loader(self.recipe, seed, rank, self.device, shared=paths is not None)
        self.epoch_steps = self.loader.epoch_steps
        self.total_steps = max(round(self.recipe.epochs * self.epoch_steps), 1)
        self.step = 0
        self.lr_factor = 1.0
        """Of the learning rate of all steps: below 1 after the loss has diverged."""
        self.average: AveragedModel | None = None
        """The mean of the weights after each step, once :meth:`begin_average` was called."""
        if paths is not None and not self.recipe.affine:
            for module in self.model.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.affine:
                    module.requires_grad_(False)
        self._dropping = dropping(self.model)
        self._seen: set[str] = set()
        """Options that were on a path with a finite loss."""
        self._suspects: list[str] = []
        self.optimizer = make_optimizer(self.model, self.recipe, self._learning_rate())

    def run(self, until: int) -> Progress:
        """Train up to step ``until``.

        Raises:
            TrainingDiverged: The loss became infinite or not a number.
        """
        begin, first, waited = time.perf_counter(), self.step, self.loader.waited
        total, made = torch.zeros((), device=self.device), []
        while self.step < until:
            step = self.step
            for path, loss in self._train_step():
                total += loss
                made.append((step, path, loss))
        paths = len(made)
        mean = float(total) / max(paths, 1)
        if not math.isfinite(mean):
            where = self._diverged(made)
            kind = OptionDiverged if len(self._suspects) == 1 else TrainingDiverged
            raise kind(
                f"the loss became {mean} between steps {first} and {self.step}{where}: "
                f"lower train.lr (now {self.recipe.lr}) or set train.clip{self._cure()}"
            )
        self._seen.update(f"{name}={option}" for _, path, _ in made if path for name, option in path.items())
        if self.step >= self.total_steps:
            self.loader.close()
        seconds, waited = time.perf_counter() - begin, self.loader.waited - waited
        return Progress(self.step, mean, paths * self.loader.examples, seconds, waited)

    def _diverged(self, made: Sequence[tuple[int, Architecture | None, Tensor]]) -> str:
        """Where the loss was first no number: the step, the path, and its options that never trained well before."""
        for step, path, loss in made:
            options = [] if path is None else [f"{name}={option}" for name, option in path.items()]
            if math.isfinite(float(loss)):
                self._seen.update(options)
                continue
            unseen = [option for option in options if option not in self._seen]
            self._suspects = unseen if len(unseen) <= _MOST_SUSPECTS else []
            never = f", of which {', '.join(self._suspects)} never had a finite loss" if self._suspects else ""
            return f", first at step {step}" + (f" on the path {text_of(path)}{never}" if path else "")
        return ""

    def _cure(self) -> str:
        """How to go on without the option that is to blame, if it is clear which one is."""
        return exclusion_hint(self._suspects) if len(self._suspects) == 1 else ""

    def _train_step(self) -> list[tuple[Architecture | None, Tensor]]:
        """One update; returns its paths and their losses."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr_factor * self._learning_rate() * self.loader.lr_scale(self.step)
        if self.recipe.drop_path:
            for module in self._dropping:
                module.drop_path = self.recipe.drop_path * self.step / self.total_steps  # type: ignore[assignment]
        # Momentum and weight decay skip a parameter without a gradient: those off the path do not change.
        self.optimizer.zero_grad(set_to_none=True)
        inputs, targets = self.loader.batch(self.step)
        chosen: Sequence[Architecture | None] = [None] if self.paths is None else self.paths(self.step)
        losses = []
        for number, path in enumerate(chosen):
            model = self.model if path is None else derive(self.model, path, share_buffers=True)
            torch.manual_seed(seed_of(self.seed, "dropout", self.step, self.rank, number))
            total = torch.zeros((), device=self.device)
            parts = self.recipe.accumulate
            for some, wanted in zip(inputs.chunk(parts), targets.chunk(parts), strict=True):
                with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
                    outputs = self.loader.forward(model, some)
                loss = self.loader.loss(outputs, wanted) * (len(some) / len(inputs))
                # The mean over the paths: the learning rate means the same however many a step takes.
                (loss / len(chosen)).backward()
                total += loss.detach()
            losses.append(total)
        self._share_gradients()
        if self.recipe.clip is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip)
        self.optimizer.step()
        if self.average is not None:
            self.average.update_parameters(self.model)
        self.step += 1
        return list(zip(chosen, losses, strict=True))

    def begin_average(self) -> None:
        """From now on keep the mean of the weights."""
        self.average = AveragedModel(self.model)

    def take_average(self) -> None:
        """End the training with the mean of the weights, if it was kept."""
        if self.average is not None and self.average.n_averaged > 0:
            self.model.load_state_dict(self.average.module.state_dict())

    def _share_gradients(self) -> None:
        """Average the gradients over the ranks: one all-reduce of one flat tensor, of only the step's paths."""
        if self.world == 1:
            return
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        flat = torch.cat([g.reshape(-1) for g in gradients])
        dist.all_reduce(flat)
        flat /= self.world
        offset = 0
        for gradient in gradients:
            gradient.copy_(flat[offset : offset + gradient.numel()].view_as(gradient))
            offset += gradient.numel()

    def _learning_rate(self) -> float:
        """The rate at this step: a linear rise over the warm-up, then the schedule."""
        assert self.recipe.lr is not None
        warm = self.recipe.warmup * self.total_steps
        if self.step < warm:
            return self.recipe.lr * (self.step + 1) / (warm + 1)
        done = min((self.step - warm) / max(self.total_steps - warm, 1.0), 1.0)
        passed = sum(done >= milestone for milestone in self.recipe.milestones)
        scale = {
            "linear": 1 - done,
            "cosine": (1 + math.cos(math.pi * done)) / 2,
            "step": self.recipe.gamma**passed,
            "constant": 1.0,
        }
        return self.recipe.lr * scale[self.recipe.schedule or "cosine"]

    def state(self) -> dict[str, Tensor]:
        """All tensors that a checkpoint needs, on the CPU.

        ``model/<name>``, what the optimizer keeps (see :mod:`raynas.training.optimizers`), and what the data need.
        """
        tensors = {f"model/{name}": value for name, value in self.model.state_dict().items()}
        tensors |= optimizer_state(self.optimizer)
        tensors |= self.loader.state_dict()
        if self.average is not None:
            tensors |= {f"average/{name}": value for name, value in self.average.state_dict().items()}
        return {name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}

    def load_state(self, tensors: dict[str, Tensor], step: int) -> None:
        """Continue from what :meth:`state` returned at ``step``.

        Raises:
            RuntimeError: The tensors belong to another model.
        """
        self.model.load_state_dict(model_tensors(tensors))
        self.loader.load_state_dict(tensors)
        kept = {name[len("average/") :]: value for name, value in tensors.items() if name.startswith("average/")}
        if kept:
            self.begin_average()
            assert self.average is not None
            self.average.load_state_dict(kept)
        load_optimizer_state(self.optimizer, tensors)
        self.step = step
