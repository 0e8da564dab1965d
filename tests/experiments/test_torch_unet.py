"""The plain PyTorch twin that the package's U-Net is measured beside."""

import torch
from torch_unet import TorchUNet, folded


def test_folding_batch_normalisation_changes_no_output():
    torch.manual_seed(0)
    network = TorchUNet(base_filters=4, depth=2)
    images = torch.rand(2, 1, 16, 16)
    for _ in range(3):
        network(10 * images)  # statistics other than 0 and 1
    for_prediction = folded(network)
    assert not [one for one in for_prediction.modules() if isinstance(one, torch.nn.BatchNorm2d)]
    with torch.inference_mode():
        torch.testing.assert_close(for_prediction(images), network.eval()(images), rtol=1e-4, atol=1e-5)
