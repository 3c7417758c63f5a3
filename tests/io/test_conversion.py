import pytest
import torch

from clipgs_plugin import GaussianCloud, ops
from clipgs_plugin.io.conversion import measure_losses


def test_losses_equal_those_computed_by_hand(random_cloud):
    cloud = random_cloud(2, sh_degree=1, dtype=torch.float64)
    turn = torch.tensor([[0.6 ** 0.5, 0.4 ** 0.5, 0, 0], [-1.0, 0, 0, 0]], dtype=torch.float64)
    written = GaussianCloud(
        means=cloud.means + torch.tensor([[3.0, 4.0, 0], [0, 0, 0]]), quats=ops.quaternion_multiply(cloud.quats, turn),
        log_scales=cloud.log_scales - torch.tensor([[0.1, 0, 0], [0, 0, 0]]), opacity_logits=cloud.opacity_logits,
        sh=cloud.sh[:, :1])
    found = {loss.quantity: loss for loss in measure_losses(cloud, written)}
    assert found['position'].largest == pytest.approx(5) and found['position'].rms == pytest.approx(12.5 ** 0.5)
    angle = 2 * torch.rad2deg(torch.acos(torch.tensor(0.6, dtype=torch.float64).sqrt())).item()
    assert found['orientation'].largest == pytest.approx(angle)
    assert found['extent'].largest == pytest.approx(100 * (torch.tensor(0.1).exp().item() - 1), rel=1e-5)
    assert found['opacity'].largest == found['colour'].largest == 0
    assert found['SH bands'].largest == pytest.approx(cloud.sh[:, 1:].abs().max().item())
    with pytest.raises(ValueError, match='written has 1 Gaussians, expected the 2'):
        measure_losses(cloud, written[:1])
