"""PSNR against its formula, SSIM against windows computed one by one."""
import numpy as np
import pytest
import torch
from image_loops import ssim_by_loops

from clipgs_plugin import ops


def pairs(*shape: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Smooth-ish images and noisy copies of them, (*shape, 3) float64 in [0, 1]."""
    g = torch.Generator().manual_seed(seed)
    images = torch.rand(*shape, 3, generator=g, dtype=torch.float64).cumsum(2) / shape[-1]
    noisy = images + 0.1 * torch.randn(images.shape, generator=g, dtype=torch.float64)
    return images.clamp(0, 1), noisy.clamp(0, 1)


def test_psnr_is_its_formula():
    images, targets = pairs(3, 7, 9)
    expected = [10 * np.log10(1 / np.mean((a - b) ** 2)) for a, b in zip(images.numpy(), targets.numpy())]
    assert ops.psnr(images, targets).tolist() == pytest.approx(expected)
    assert ops.psnr(images.float(), targets.float()).dtype == torch.float64


def test_psnr_of_some_pixels_ignores_the_others():
    images, targets = pairs(3, 7, 9)
    pixels = torch.rand(3, 7, 9, generator=torch.Generator().manual_seed(1)) < 0.4
    expected = [10 * np.log10(1 / np.mean((a[m] - b[m]) ** 2))
                for a, b, m in zip(images.numpy(), targets.numpy(), pixels.numpy())]
    assert ops.psnr(images, targets, pixels).tolist() == pytest.approx(expected)


def test_psnr_of_equal_images_is_100_decibels():
    images, _ = pairs(2, 5, 5)
    assert ops.psnr(images, images).tolist() == [100.0, 100.0]


@pytest.mark.parametrize('shape', [(2, 11, 11), (1, 11, 16), (2, 15, 12)])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_ssim_is_the_mean_over_windows(shape, dtype):
    images, targets = pairs(*shape)
    found = ops.ssim(images.to(dtype), targets.to(dtype))
    assert found.dtype == dtype
    expected = [ssim_by_loops(a, b) for a, b in zip(images.numpy(), targets.numpy())]
    assert found.tolist() == pytest.approx(expected, abs=1e-10 if dtype == torch.float64 else 1e-5)


def test_ssim_is_symmetric_and_1_for_equal_images():
    images, targets = pairs(2, 20, 17)
    assert torch.allclose(ops.ssim(images, targets), ops.ssim(targets, images))
    assert torch.allclose(ops.ssim(images, images), torch.ones(2, dtype=torch.float64))


def test_gradients_of_ssim_are_numerical_ones():
    images, targets = pairs(1, 12, 11)
    assert torch.autograd.gradcheck(lambda x: ops.ssim(x, targets), images.requires_grad_())


def test_wrong_shapes_are_named():
    images, targets = pairs(2, 12, 12)
    for metric in (ops.psnr, ops.ssim):
        with pytest.raises(ValueError, match=r'images of shape \(1, 12, 12, 3\) and targets of shape'):
            metric(images[:1], targets)
    with pytest.raises(ValueError, match='at least 11 x 11 pixels, got 12 x 10'):
        ops.ssim(images[:, :, :10], targets[:, :, :10])
