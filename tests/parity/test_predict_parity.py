"""predict with torchvision's AlexNet gives PyTorch's probabilities, from .pth and from .safetensors."""

import json

import numpy as np
import pytest
from PIL import Image

import alexnet
from alexnet import weights
from alexnet.commands import predict
from minidl import nn, random
from minidl.errors import UserError

torch = pytest.importorskip("torch")
from safetensors.torch import save_file  # noqa: E402

from ..alexnet.test_weights import cut, empty, huge, nothing, other_names, pipe, text  # noqa: E402
from .test_torch_parity import twin_of  # noqa: E402

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of torchvision's weights


@pytest.fixture(scope="module")
def network():
    """The network in PyTorch, with weights large enough that the probabilities differ."""
    random.manual_seed(0)
    net = alexnet.create("alexnet-torchvision", 20)
    for _, layer in net.named_modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            layer.weight.data[...] *= 1.5 if isinstance(layer, nn.Conv2d) else 3.0
    return twin_of(net).eval()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Smooth random pictures: one wider than high, one higher than wide, one almost square."""
    files, draws = [], np.random.default_rng(0)
    for i, size in enumerate([(500, 375), (300, 450), (224, 256)]):
        image = Image.fromarray(draws.integers(0, 256, (9, 12, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
        files.append(tmp_path_factory.mktemp("pictures") / f"{i}.png")
        image.save(files[-1])
    return files


def expected(network, file):
    """The probabilities with torchvision's transforms: Resize(256), CenterCrop(224), ToTensor, Normalize."""
    image = Image.open(file)
    width, height = image.size
    short = min(width, height)
    image = image.resize((256 * width // short, 256 * height // short), Image.Resampling.BILINEAR)
    left, top = (round((n - 224) / 2) for n in image.size)
    pixels = torch.tensor(np.asarray(image.crop((left, top, left + 224, top + 224)))).permute(2, 0, 1) / 255
    x = (pixels - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    with torch.no_grad():
        return torch.softmax(network(x[None]), 1)[0].numpy()


@pytest.mark.parametrize("kind", ["alexnet.pth", "checkpoint.pth", "alexnet.safetensors"])
def test_predict_gives_pytorchs_probabilities(network, pictures, tmp_path, capsys, kind):
    file, state = tmp_path / kind, network.state_dict()
    if kind == "alexnet.pth":
        torch.save(state, file)
    elif kind == "checkpoint.pth":
        torch.save({"epoch": 3, "state_dict": {f"module.{name}": value for name, value in state.items()}}, file)
    else:
        save_file(state, file)
    assert predict.main([str(file), *map(str, pictures), "--json", "--top", "20"]) == 0
    answers = json.loads(capsys.readouterr().out)
    for answer, picture in zip(answers, pictures, strict=True):
        probabilities = np.zeros(20)
        for one in answer["predictions"]:
            probabilities[int(one["class"])] = one["probability"]
        right = expected(network, picture)
        assert right.max() > 0.1 and right.max() > 3 * right.min()
        np.testing.assert_allclose(probabilities, right, atol=1e-3)


@pytest.mark.parametrize("content", [[1, 2], {"a": 1}, {"state_dict": 3}, torch.zeros(3), {"weight": torch.zeros(2)}], ids=str)
def test_files_without_a_state_are_refused(tmp_path, content):
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(UserError, match="cannot read the weights of a network from .*a.pth") as error:
        weights.read(tmp_path / "a.pth")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("damage", [empty, cut, text, nothing, huge, pipe, other_names])
def test_damaged_files_are_refused(tmp_path, damage):
    torch.save({"classifier.6.weight": torch.zeros(2, 4096)}, tmp_path / "a.pth")
    damage(tmp_path / "a.pth")
    with pytest.raises(UserError, match="cannot read the weights of a network from .*a.pth") as error:
        weights.read(tmp_path / "a.pth")
    assert "\n" not in str(error.value)


class Harm:
    def __reduce__(self):
        return print, ("harm",)


def test_a_pickled_call_is_not_executed(tmp_path, capsys):
    torch.save({"state_dict": Harm()}, tmp_path / "a.pth")
    with pytest.raises(UserError, match="cannot read the weights of a network from .*a.pth"):
        weights.read(tmp_path / "a.pth")
    assert capsys.readouterr().out == ""
