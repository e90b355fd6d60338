"""The runner of Core ML programs gives what PyTorch gives of networks with all of its operations; others it refuses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from regraft.core.errors import UsageError
from regraft.exports import core_ml_program
from regraft.exports.quiet import quiet

NETWORKS = ("test_resnet", "test_convnext", "test_mambaout", "test_byobnet", "mobilenetv3_small_050")


@pytest.fixture(scope="module")
def converted():
    with quiet():
        ct = pytest.importorskip("coremltools", reason="--to coreml needs coremltools")

    def converted(network, size, precision="FLOAT32"):
        """Return the main function of the program of a network."""
        with quiet(), torch.no_grad():
            program = torch.export.export(network.eval(), (torch.zeros(1, 3, size, size),)).run_decompositions({})
            model = ct.convert(
                program,
                inputs=[ct.TensorType("x", (1, 3, size, size))],
                classifier_config=ct.ClassifierConfig(["a", "b"]),
                minimum_deployment_target=ct.target.iOS15,
                compute_precision=getattr(ct.precision, precision),
                skip_model_load=True,
            )
        return model._mil_program.functions["main"]

    return converted


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_networks_give_what_they_give_in_pytorch(converted, name):
    from regraft.network.workaround_torchvision_nms import import_timm

    network = import_timm().create_model(name, num_classes=2).eval()
    image = torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = network(image)[0].numpy()
        for precision, limit in (("FLOAT32", 1e-4), ("FLOAT16", 0.02)):
            outputs = core_ml_program.run(converted(network, 96, precision), {"x": image})
            assert np.abs(outputs - expected).max() <= limit * max(1, np.abs(expected).max())


class Cumulative(nn.Module):
    def forward(self, images):
        return images.mean((2, 3)).cumsum(1)[:, :2]


@pytest.mark.slow
def test_an_operation_that_is_not_run_is_refused_by_name(converted):
    function = converted(Cumulative(), 8)
    with pytest.raises(UsageError, match="can't be checked here: regraft does not run its operation cumsum"):
        core_ml_program.run(function, {"x": torch.zeros(1, 3, 8, 8)})
