"""Augmentation: every image by itself, held by the generator, equal to torchvision where it does the same."""

from __future__ import annotations

import pytest
import torch
from torchvision.transforms.v2 import functional

from raynas.data.transforms import Augment, _jitter, _resized, normalise


def _batch(count: int = 64, side: int = 32, channels: int = 3) -> torch.Tensor:
    return torch.randint(1, 256, (count, channels, side, side), dtype=torch.uint8, generator=_generator(9))


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _places(image: torch.Tensor, result: torch.Tensor, padding: int) -> list[tuple[int, int, bool]]:
    """Where in the padded image, mirrored or not, a result was taken."""
    size, padded = result.shape[-1], torch.nn.functional.pad(image, (padding,) * 4)
    return [
        (top, left, flipped)
        for top in range(2 * padding + 1)
        for left in range(2 * padding + 1)
        for flipped in (False, True)
        if torch.equal(
            padded[:, top : top + size, left : left + size].flip(-1)
            if flipped
            else padded[:, top : top + size, left : left + size],
            result,
        )
    ]


@pytest.mark.parametrize("name, channels, side", [("crop_flip", 3, 32), ("crop", 1, 8)])
def test_crops_are_windows_of_each_image_by_itself(name: str, channels: int, side: int) -> None:
    images = _batch(64, side, channels)
    before = images.clone()
    result = Augment(name, side)(images, _generator())
    found = [_places(image, out, side // 8) for image, out in zip(images, result, strict=True)]
    assert all(len(places) == 1 for places in found)
    assert len({places[0][:2] for places in found}) > (20 if side == 32 else 8)  # of 81 or 9: not one for the batch
    mirrored = sum(places[0][2] for places in found)
    assert 16 < mirrored < 48 if name == "crop_flip" else mirrored == 0
    assert torch.equal(images, before)


def test_every_place_is_equally_likely() -> None:
    ramp = torch.arange(1, 65, dtype=torch.uint8).view(1, 1, 8, 8).expand(9000, 1, 8, 8)
    corner = Augment("crop", 8)(ramp, _generator())[:, 0, 4, 4]
    counts = corner.long().bincount(minlength=64)
    assert (counts > 0).sum() == 9 and counts[counts > 0].min() > 850 and counts.max() < 1150


@pytest.mark.parametrize("name", ["none", "crop", "crop_flip", "imagenet"])
@pytest.mark.parametrize("cutout", [0, 8])
def test_same_generator_same_result(name: str, cutout: int) -> None:
    augment, images = Augment(name, 32, cutout=cutout), _batch()
    first, again = augment(images, _generator(1)), augment(images, _generator(1))
    assert torch.equal(first, again) and first.dtype == torch.uint8 and first.shape == images.shape
    assert torch.equal(first, augment(images, _generator(2))) == (name == "none" and cutout == 0)


def test_cutout_paints_a_square_of_each_image() -> None:
    images = _batch()
    result = Augment("none", 32, cutout=8, colour=(0.0,))(images, _generator())
    holes = (result == 0).all(1)
    assert torch.equal(torch.where(holes[:, None], 0, images), result)
    assert holes.sum((1, 2)).min() >= 16 and holes.sum((1, 2)).max() == 64
    assert len({tuple(hole.nonzero()[0].tolist()) for hole in holes}) > 50
    grey = Augment("none", 32, cutout=8, colour=(0.2, 0.4, 0.6))(images, _generator())
    assert grey[0, :, holes[0]].unique(dim=1).flatten().tolist() == [51, 102, 153]


def test_the_strength_scales_what_is_done() -> None:
    images = _batch(64, 32)
    for strength, moved in ((0.0, 0), (0.5, 2), (1.0, 4), (2.0, 8)):
        result = Augment("crop", 32, strength=strength)(images, _generator())
        at = [_places(image, out, 8)[0][:2] for image, out in zip(images, result, strict=True)]
        assert max(abs(place - 8) for pair in at for place in pair) == moved

    def change(strength: float) -> float:
        augmented = Augment("imagenet", 32, strength=strength)(smooth, _generator()).float()
        return min((augmented - x.float()).abs().mean().item() for x in (smooth, smooth.flip(-1)))

    smooth = torch.arange(32).mul(8).to(torch.uint8).expand(64, 3, 32, 32).contiguous()
    again = Augment("imagenet", 32, strength=0.0)(smooth, _generator())
    assert all(torch.equal(x, y) or torch.equal(x, y.flip(-1)) for x, y in zip(again, smooth, strict=True))
    assert change(0.3) < change(1.0) < change(2.0)
    with pytest.raises(ValueError, match="strength is 3"):
        Augment("crop", 32, strength=3)


def test_rectangles_are_resized_as_by_torchvision() -> None:
    images = _batch(3, 24)
    boxes = torch.tensor([[0.0, 3.0, 10.0], [0.0, 8.0, 13.0], [24.0, 7.0, 12.0], [24.0, 9.0, 10.0]])
    ours = _resized(images, boxes, torch.tensor([[False], [False], [True]]), 24)
    for index, (top, left, height, width) in enumerate(boxes.T.int().tolist()):
        theirs = functional.resized_crop(images[index].float(), top, left, height, width, [24, 24], antialias=False)
        torch.testing.assert_close(ours[index], theirs.flip(-1) if index == 2 else theirs, atol=0.02, rtol=0)


def test_colours_change_as_by_torchvision() -> None:
    images = _batch(3, 16).float()
    factors = torch.tensor([[0.6, 1.0, 1.4], [1.3, 0.7, 1.0], [0.8, 1.4, 1.1]])
    ours = _jitter(images, factors.view(3, 3, 1, 1, 1))
    for index in range(3):
        theirs = functional.adjust_brightness(images[index] / 255, float(factors[0, index]))
        theirs = functional.adjust_contrast(theirs, float(factors[1, index]))
        theirs = functional.adjust_saturation(theirs, float(factors[2, index]))
        torch.testing.assert_close(ours[index] / 255, theirs, atol=1e-3, rtol=0)


def test_imagenet_takes_different_parts_of_each_image() -> None:
    same = _batch(1, 32).expand(16, -1, -1, -1)
    result = Augment("imagenet", 32)(same, _generator())
    assert len({bytes(image.numpy()) for image in result}) == 16
    assert Augment("imagenet", 24)(_batch(4, 40, 1)[..., :30], _generator()).shape == (4, 1, 24, 24)


def test_normalise() -> None:
    images = _batch(4)
    mean, std = (0.1, 0.5, 0.9), (0.2, 0.3, 0.4)
    expected = functional.normalize(images / 255, mean, std)
    torch.testing.assert_close(normalise(images, mean, std), expected)
    torch.testing.assert_close(normalise(images, torch.tensor(mean), torch.tensor(std)), expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("name", ["crop", "crop_flip", "imagenet"])
def test_gpu_does_as_the_cpu_does(name: str) -> None:
    augment, images = Augment(name, 32, cutout=8), _batch()
    ours = augment(images.cuda(), _generator()).cpu().int()
    assert (ours - augment(images, _generator()).int()).abs().max() <= 1
    generator = torch.Generator("cuda").manual_seed(0)
    assert augment(images.cuda(), generator).device.type == "cuda"


def test_bad_settings() -> None:
    with pytest.raises(ValueError, match="unknown augmentation 'flip'; legal ones: none, crop, crop_flip, imagenet"):
        Augment("flip", 32)
    with pytest.raises(ValueError, match="have no 32x32 to take"):
        Augment("crop", 32)(_batch(2, 16), _generator())
    with pytest.raises(ValueError, match="are not of size 32"):
        Augment("none", 32)(_batch(2, 16), _generator())
    with pytest.raises(ValueError, match="1 or 3 channels, not 2"):
        Augment("imagenet", 16)(_batch(2, 16, 2), _generator())


def test_imagenet_is_mirrored_where_its_name_says_so_and_not_where_it_is_told_not_to() -> None:
    images = torch.zeros(64, 1, 32, 32, dtype=torch.uint8)
    images[..., :16] = 255  # the left half is white

    def left(augment: Augment) -> int:
        found = augment(images, _generator()).float()
        return int((found[..., :4].mean((1, 2, 3)) < found[..., -4:].mean((1, 2, 3))).sum())

    assert left(Augment("imagenet", 32)) > 10 and left(Augment("imagenet", 32, mirror=False)) == 0
    assert left(Augment("crop", 32, mirror=True)) > 10 and left(Augment("crop_flip", 32, mirror=False)) == 0
    assert str(Augment("crop_flip", 32, cutout=8)) == (
        "cut at a random place after padding by 4 pixels, mirrored, a square of 8 pixels masked"
    )
    assert str(Augment("none", 32)) == "none, not mirrored" and "not mirrored" in str(Augment("crop", 8))
