import subprocess
import sys

import pytest
import torch

from flowexp.metrics.pretrained import float32_inference, in_chunks, without_tf32


def precisions():
    return torch.backends.cudnn.conv.fp32_precision, torch.backends.cuda.matmul.fp32_precision


def test_tf32_is_off_inside_and_as_before_outside():
    before = precisions(), torch.backends.cudnn.allow_tf32
    with without_tf32():
        assert precisions() == ("ieee", "ieee")
    with pytest.raises(ZeroDivisionError), without_tf32():
        _ = 1 / 0
    assert (precisions(), torch.backends.cudnn.allow_tf32) == before


def test_autocast_and_gradients_are_off_inside():
    weight = torch.ones(2, 2, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (weight @ weight).dtype == torch.bfloat16
        with float32_inference(torch.device("cpu")):
            product = weight @ weight
    assert product.dtype == torch.float32
    assert not product.requires_grad


def test_chunks_are_put_together_in_order():
    x = torch.arange(10.0)[:, None]
    sizes = []

    def features(part):
        sizes.append(len(part))
        return 2 * part

    torch.testing.assert_close(in_chunks(features, x, size=4, device=torch.device("cpu")), 2 * x)
    assert sizes == [4, 4, 2]


def test_importing_the_package_stays_light():
    heavy = ("timm", "torch_fidelity", "torchmetrics", "scipy", "sklearn", "lightning", "PIL")
    code = f"import sys, flowexp.metrics; print([m for m in {heavy} if m in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


@pytest.mark.gpu
def test_features_on_cuda_equal_those_on_cpu():
    from flowexp.metrics import EfficientNetLite0

    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    images = torch.randint(
        0, 256, (16, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8
    )
    cpu = EfficientNetLite0()(images)
    cuda = EfficientNetLite0().load(device="cuda")(images).cpu()
    torch.testing.assert_close(cuda, cpu, rtol=0, atol=1e-3)
