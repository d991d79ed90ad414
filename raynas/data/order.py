"""Which examples a step of training sees: a function of the seed and the step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from raynas.exceptions import ConfigError
from raynas.utils.seeds import seed_of

__all__ = ["MIXED", "EpochOrder", "RankInfo", "steps_per_epoch"]

MIXED = 16
"""How many blocks of examples are mixed at a time."""


@dataclass(frozen=True)
class RankInfo:
    """The place of one process among those that train together."""

    rank: int = 0
    world_size: int = 1


def steps_per_epoch(examples: int, batch_size: int) -> int:
    """Full batches in one pass; a data set smaller than a batch makes one step."""
    return max(examples // batch_size, 1)


class EpochOrder:
    """A new random order for each epoch, cut into steps, of which each rank has its share.

    Args:
        count: How many examples there are.
        batch_size: Examples of a step over all ranks; rounded down to a multiple of the ranks.
        seed: Of the orders.
        rank: Of this process.
        device: Of what :meth:`rows` returns.
        blocks: The first example of each block of examples that are read together. Then blocks are put in a random
            order, and the examples of :data:`MIXED` blocks at a time are mixed.

    Raises:
        ConfigError: A step has fewer examples than there are ranks.
    """

    def __init__(
        self,
        count: int,
        batch_size: int,
        seed: int,
        rank: RankInfo,
        device: torch.device | str = "cpu",
        blocks: Sequence[int] | None = None,
    ) -> None:
        self.count, self.seed, self.rank, self.device, self.blocks = count, seed, rank, device, blocks
        largest = min(batch_size, count)
        self.examples = largest // rank.world_size * rank.world_size
        """Examples of a step, over all ranks."""
        if not self.examples:
            raise ConfigError(
                f"{largest} examples a step are too few for {rank.world_size} workers: set train.batch_size to at "
                f"least {rank.world_size}, or lower train.workers (the data have {count} examples)"
            )
        self.epoch_steps = steps_per_epoch(count, self.examples)
        """Steps of an epoch."""
        self._epoch: tuple[int, Tensor] | None = None

    def rows(self, step: int) -> Tensor:
        """The numbers of this rank's examples of a step: int64 [examples / ranks]."""
        epoch, index = divmod(step, self.epoch_steps)
        if self._epoch is None or self._epoch[0] != epoch:
            generator = torch.Generator().manual_seed(seed_of(self.seed, "order", epoch))
            self._epoch = (epoch, self._shuffled(generator).to(self.device))
        step_rows = self._epoch[1][index * self.examples : (index + 1) * self.examples]
        return step_rows[self.rank.rank :: self.rank.world_size]

    def _shuffled(self, generator: torch.Generator) -> Tensor:
        """All examples in a random order: int64 [count]."""
        if self.blocks is None:
            return torch.randperm(self.count, generator=generator)
        ends = [*self.blocks[1:], self.count]
        blocks = [torch.arange(*pair) for pair in zip(self.blocks, ends, strict=True)]
        order = [blocks[number] for number in torch.randperm(len(blocks), generator=generator).tolist()]
        mixed = [torch.cat(order[start : start + MIXED]) for start in range(0, len(order), MIXED)]
        return torch.cat([part[torch.randperm(len(part), generator=generator)] for part in mixed])
