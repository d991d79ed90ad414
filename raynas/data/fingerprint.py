"""A hash of what a data set holds."""

from __future__ import annotations

import hashlib

from torch import Tensor

from raynas.data.dataset import Data
from raynas.data.encoded import EncodedSplit

__all__ = ["contents"]


def contents(data: Data) -> str:
    """A hash of the labels of a data set, or of the words of a text, and of the shapes; all parts in their order.

    Two readers may decode an image a bit differently, so the pixels do not count.
    """
    digest = hashlib.blake2b(digest_size=16)
    for part in (data.train, data.validation, data.test):
        if isinstance(part, EncodedSplit):
            digest.update(f"inputs {(len(part), *part.image_shape)}".encode())
        for name, tensor in sorted(vars(part).items()):
            if not isinstance(tensor, Tensor):
                continue
            digest.update(f"{name} {tuple(tensor.shape)}".encode())
            if name != "inputs":
                digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
