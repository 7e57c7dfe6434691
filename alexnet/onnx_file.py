"""Write a network to an ONNX file, a graph that other programs can run."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from minidl import Tensor, no_grad
from minidl.backend import to_numpy
from minidl.errors import UserError
from minidl.files import replacing
from minidl.nn import (
    AdaptiveAvgPool2d,
    BatchNorm2d,
    Conv2d,
    Dropout,
    Flatten,
    Linear,
    LocalResponseNorm,
    MaxPool2d,
    Module,
    ReLU,
)

from .models import CeilConv2d, HalvedDropout, SameMapNorm, layers
from .weights import Weights

OPSET, IR_VERSION = 13, 8  # old enough for every ONNX Runtime since 1.8
TOLERANCE = 1e-4  # of logits, in multiples of the largest one, or of 1 if that is larger


class Graph:
    """A chain of nodes, each of which takes the output of the one before, and the arrays that they use."""

    def __init__(self, helper: Any, numpy_helper: Any, x: str, shape: tuple[int, ...]):
        self.helper, self.numpy_helper = helper, numpy_helper
        self.x, self.shape = x, shape  # the last output's name, and its shape for one image
        self.nodes: list[Any] = []
        self.arrays: list[Any] = []

    def array(self, name: str, values: Any) -> str:
        """A constant of the graph, float32."""
        values = np.ascontiguousarray(to_numpy(values), np.float32)
        self.arrays.append(self.numpy_helper.from_array(values, name))
        return name

    def shape_array(self, name: str, *shape: int) -> str:
        """A shape that Reshape takes, as a constant of the graph."""
        self.arrays.append(self.numpy_helper.from_array(np.array(shape, np.int64), name))
        return name

    def add(self, kind: str, output: str, *inputs: str, **attributes: Any) -> None:
        self.nodes.append(self.helper.make_node(kind, [self.x, *inputs], [output], name=output, **attributes))
        self.x = output

    def layer(self, name: str, layer: Module) -> None:
        """Add the nodes of a layer in evaluation mode. Raises UserError for a layer that cannot be written to an ONNX file."""
        _, H, W = (*self.shape, 0, 0)[:3]
        if isinstance(layer, Conv2d):
            (KH, KW), (SH, SW), (PH, PW) = layer.weight.shape[2:], layer.stride, layer.padding
            pads = [PH, PW, PH, PW]
            if isinstance(layer, CeilConv2d):
                pads[2] += -(H - KH) % SH
                pads[3] += -(W - KW) % SW
            weights = [self.array(f"{name}.weight", layer.weight.data)]
            if layer.bias is not None:
                weights.append(self.array(f"{name}.bias", layer.bias.data))
            self.add("Conv", name, *weights, kernel_shape=[KH, KW], strides=[SH, SW], pads=pads, group=layer.groups)
        elif isinstance(layer, BatchNorm2d):
            parts = {"weight": layer.weight.data, "bias": layer.bias.data, "mean": layer.running_mean, "var": layer.running_var}
            arrays = [self.array(f"{name}.{part}", values) for part, values in parts.items()]
            self.add("BatchNormalization", name, *arrays, epsilon=layer.eps)
        elif isinstance(layer, ReLU):
            self.add("Relu", name)
        elif isinstance(layer, LocalResponseNorm) and layer.convention == "pytorch" and layer.size % 2:
            self._normalise(name, layer)
        elif isinstance(layer, SameMapNorm):
            x, size = self.x, layer.size
            self.add("Mul", f"{name}.squares", x)
            window = {"kernel_shape": [size] * 2, "strides": [1, 1], "pads": [size // 2] * 4, "count_include_pad": 1}
            self.add("AveragePool", f"{name}.means", **window)
            self.add("Mul", f"{name}.scaled", self.array(f"{name}.alpha", layer.alpha))
            self.add("Add", f"{name}.sums", self.array(f"{name}.one", 1.0))
            self.add("Pow", f"{name}.powers", self.array(f"{name}.exponent", -layer.beta))
            self.add("Mul", name, x)
        elif isinstance(layer, MaxPool2d) and not layer.ceil_mode:
            self.add("MaxPool", name, **_window(layer))
        elif isinstance(layer, AdaptiveAvgPool2d):
            self._adaptive(name, layer, H, W)
        elif isinstance(layer, HalvedDropout):
            self.add("Mul", name, self.array(f"{name}.half", 0.5))
        elif isinstance(layer, Flatten):
            self.add("Flatten", name, axis=1)
        elif isinstance(layer, Linear):
            weights = [self.array(f"{name}.weight", layer.weight.data)]
            if layer.bias is not None:
                weights.append(self.array(f"{name}.bias", layer.bias.data))
            self.add("Gemm", name, *weights, transB=1)
        elif not isinstance(layer, Dropout):
            raise UserError(f"{name} is a {layer!r}, which cannot be written to an ONNX file yet")

    def _normalise(self, name: str, layer: LocalResponseNorm) -> None:
        """Local response normalisation. ONNX has no groups, so each group of channels becomes an image."""
        settings = {"size": layer.size, "alpha": layer.alpha, "beta": layer.beta, "bias": layer.k}
        if layer.groups == 1:
            self.add("LRN", name, **settings)
            return
        C, H, W = self.shape
        self.add("Reshape", f"{name}.groups", self.shape_array(f"{name}.of groups", -1, C // layer.groups, H, W))
        self.add("LRN", f"{name}.normalised", **settings)
        self.add("Reshape", name, self.shape_array(f"{name}.of all", -1, C, H, W))

    def _adaptive(self, name: str, layer: AdaptiveAvgPool2d, H: int, W: int) -> None:
        """Adaptive average pooling, as plain pooling. Raises UserError if the windows have several sizes."""
        OH, OW = _pair(layer.output_size)
        if H % OH or W % OW:
            raise UserError(f"{name} makes {OH} x {OW} from {H} x {W} with windows of several sizes, which ONNX does not have; "
                            "choose another image size")  # fmt: skip
        self.add("AveragePool", name, kernel_shape=[H // OH, W // OW], strides=[H // OH, W // OW])


def _pair(value: Any) -> tuple[int, int]:
    return value if isinstance(value, tuple) else (value, value)


def _window(layer: Any) -> dict[str, Any]:
    padding = list(_pair(layer.padding))
    kernel = _pair(layer.kernel_size)
    return {"kernel_shape": list(kernel), "strides": list(_pair(layer.stride)), "pads": padding * 2}


@np.errstate(over="ignore", invalid="ignore")  # NaN and infinity are reported by _compare, not by warnings
def write(path: Path, weights: Weights) -> None:
    """Write the network as ONNX: "pixels" (N, C, H, W) float32 from 0 to 255 -> "logits" (N, classes).

    The graph normalises the pixels itself. The file is written atomically, after a check that ONNX Runtime returns the network's
    logits. Raises UserError if it does not, or if onnx or onnxruntime is not installed, and OSError.
    """
    try:
        import onnx
        from onnx import TensorProto, helper, numpy_helper
    except ImportError:
        raise UserError("to write ONNX files, pip install -e '.[onnx]' first") from None
    preparation = weights.preparation
    C, size = preparation.channels, preparation.image_size
    network = weights.network.to(dtype="float32")
    graph = Graph(helper, numpy_helper, "pixels", (C, size, size))
    graph.add("Sub", "centred", graph.array("mean", np.reshape(preparation.mean, (C, 1, 1))))
    graph.add("Mul", "normalised", graph.array("one over std", 1 / np.reshape(preparation.std, (C, 1, 1))))
    x = Tensor(np.zeros((1, C, size, size), np.float32))
    with no_grad():
        for name, layer in layers(network):
            graph.layer(name, layer)
            x = layer(x)
            graph.shape = x.shape[1:]
    graph.add("Identity", "logits")
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            weights.model,
            [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["N", C, size, size])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", len(weights.classes)])],
            graph.arrays,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="minidl",
    )
    for key, value in json.loads(weights.metadata()).items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value if isinstance(value, str) else json.dumps(value)
    content = model.SerializeToString()
    onnx.checker.check_model(content)
    _compare(content, network, preparation, (C, size, size))
    with replacing(path) as part:
        part.write_bytes(content)


def _compare(content: bytes, network: Module, preparation: Any, shape: tuple[int, ...]) -> None:
    """Raise UserError if the network's logits are NaN or infinite, or ONNX Runtime's differ from them."""
    try:
        import onnxruntime
    except ImportError:
        raise UserError("to write ONNX files, pip install -e '.[onnx]' first") from None
    pixels = np.random.default_rng(0).integers(0, 256, (2, *shape)).astype(np.float32)
    mean, std = (np.array(values, np.float32).reshape(-1, 1, 1) for values in (preparation.mean, preparation.std))
    with no_grad():
        expected = to_numpy(network.eval()(Tensor((pixels - mean) / std)).data)
    if not np.isfinite(expected).all():
        raise UserError("the network's logits are NaN or infinite: its weights are damaged; try --checkpoint best")
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"pixels": pixels})
    largest = max(1.0, float(abs(expected).max()))
    difference = float(abs(logits - expected).max())
    if not difference <= TOLERANCE * largest:
        raise UserError(f"ONNX Runtime's logits differ by {difference:.2g} from minidl's; use a .safetensors file")
