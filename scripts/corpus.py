"""The models that Paisley is checked with, where they come from, and how outputs are compared. Not a script: the others import it.

The corpus is a folder beside the repository that holds architectures without weights (with a script that draws them), models with
weights, and for each the inputs and outputs of ONNX Runtime without optimisations. `corpus-models.py` makes model files of it.
"""

import dataclasses
from pathlib import Path

import numpy as np


@dataclasses.dataclass(frozen=True)
class Model:
    """One model: its name here, its file in the corpus (None: drawn by the architectures' script), its golden file, and how much
    ONNX Runtime's own outputs differ with and without optimisations, relative to the largest."""

    name: str
    file: str | None
    golden: str
    noise: float
    small: bool = False  # Quick enough for the reference interpreter.

    @property
    def tolerance(self):
        """The largest error allowed: another order of summation costs ten to thirty times the noise."""
        return 1e-4 if self.noise < 5e-6 else 1e-3


def _file(name, file, golden, noise=2e-6, small=False):
    return Model(name, f"models/{file}.onnx", golden, noise, small)


def _drawn(name, noise, small=False):
    return Model(name, None, name, noise, small)


MINILM = "minilm-l6-v2"

MODELS = [
    _file("efficientnet-lite0", "efficientnet-lite0/model", "efficientnet-lite0__model"),
    _file("squeezenet1_1", "squeezenet1_1/model", "squeezenet1_1__model"),
    _file("mnist-cntk", "mnist-cntk/model", "mnist-cntk__model", small=True),
    _file("mtcnn-pnet", "mtcnn/pnet", "mtcnn__pnet", small=True),
    _file("mtcnn-rnet", "mtcnn/rnet", "mtcnn__rnet", small=True),
    _file("mtcnn-onet", "mtcnn/onet", "mtcnn__onet", small=True),
    _file("resnet18-w16", "cifar10/resnet18-w16", "cifar10__resnet18-w16", small=True),
    _file("vgg16-w24", "cifar10/vgg16-w24", "cifar10__vgg16-w24", small=True),
    _file("mobilenetv1-0.75", "cifar10/mobilenetv1-0.75", "cifar10__mobilenetv1-0.75", small=True),
    _file("mobilenetv2-0.5", "cifar10/mobilenetv2-0.5", "cifar10__mobilenetv2-0.5", small=True),
    _drawn("resnet18", 8.1e-7),
    _drawn("resnet50", 9.7e-6),
    _drawn("mobilenet_v1", 1.2e-5),
    _drawn("mobilenet_v2", 9.1e-6),
    _drawn("mobilenet_v3_small", 1.2e-6, small=True),
    _drawn("vgg16", 9.0e-7),
    _drawn("alexnet", 6.4e-7),
    _drawn("densenet121", 9.3e-7),
    _drawn("googlenet", 4.3e-6),
    _drawn("shufflenet_v2_x1_0", 4.7e-6),
    _drawn("squeezenet1_0", 2.0e-6),
    _drawn("resnext50_32x4d", 1.2e-5),
    _drawn("mnasnet1_0", 9.3e-6),
    _drawn("efficientnet_b0", 1.3e-6),
    _drawn("efficientnet_b4", 1.5e-5),
    _drawn("regnet_x_800mf", 3.9e-6),
    _drawn("resnext101_32x8d", 3.5e-5),
    _drawn("convnext_tiny", 3.1e-7),
    _drawn("bert_mini", 2.5e-6, small=True),
    _drawn("bert_mini_dynamo", 2.9e-6, small=True),
    _drawn("bert_base", 3.1e-6),
    _drawn("mobilebert", 5.0e-6),
    _drawn("deit_tiny", 5.5e-7),
    _drawn("vit_b_16", 8.3e-7),
    Model(MINILM, "models/minilm-l6-v2/graph.onnx", "minilm-l6-v2__model", 2e-6),
]


# Networks at the size they are used at: what speed is compared on.
USUAL = [model.name for model in MODELS if model.file is None] + ["efficientnet-lite0", "squeezenet1_1", MINILM]


def choose(names):
    """The models of `names`, or all; exits with a message at an unknown name."""
    known = {model.name: model for model in MODELS}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise SystemExit(f"unknown model {', '.join(unknown)}; known: {', '.join(known)}")
    return [known[name] for name in names] or MODELS


def golden(path: Path):
    """Inputs and outputs of a golden file, keyed by their names in the model."""
    with np.load(path) as arrays:
        inputs = {key[3:]: arrays[key] for key in arrays.files if key.startswith("in:")}
        outputs = {key[4:]: arrays[key] for key in arrays.files if key.startswith("out:")}
    return inputs, outputs


def error(got, want):
    """The largest error over all outputs, each relative to its largest value; infinite where one lacks, or differs in shape."""
    worst = 0.0
    for name, wanted in want.items():
        if name not in got or got[name].shape != wanted.shape:
            return float("inf")
        wanted = wanted.astype(np.float64)
        difference = np.abs(got[name].astype(np.float64) - wanted)
        scale = max(float(np.abs(wanted).max(initial=0.0)), 1e-30)
        relative = float(difference.max(initial=0.0)) / scale
        worst = max(worst, relative if np.isfinite(relative) else float("inf"))
    return worst
