"""When the weights of a training begin to be averaged."""

from __future__ import annotations

__all__ = ["Averaging"]


class Averaging:
    """The non-monotonic trigger of NT-ASGD: averaging begins where the validation loss has ceased to improve.

    Merity, Keskar and Socher, "Regularizing and Optimizing LSTM Language Models", ICLR 2018.

    Args:
        patience: Epochs.
    """

    def __init__(self, patience: int) -> None:
        self.patience = patience
        self.losses: list[float] = []
        """The validation loss after each epoch."""

    def begins(self, loss: float) -> bool:
        """Note the loss of an epoch; whether it is above the best of those more than ``patience`` epochs before."""
        earlier = self.losses[: -self.patience]
        self.losses.append(loss)
        return bool(earlier) and loss > min(earlier)
