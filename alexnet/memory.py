"""The message for a full memory."""

import gc

import numpy as np

from minidl import Tensor
from minidl import functional as F
from minidl.backend import to_device
from minidl.partition import ceil_div

from .builders import build_model, build_optimizer, freeze, input_shape
from .config import Config
from .datasets import Dataset


def out_of_memory(config: Config, dataset: Dataset, device: str, size: int) -> str:
    """One line with the largest batch size that fits. The batch size is halved until a training step succeeds.

    size: the number of devices that divide a batch.
    """
    batch_size = min(config.recipe.batch_size, config.limit_train or len(dataset.train))
    images = ceil_div(batch_size, size)
    full = "the memory is full" if device == "numpy" else f"the memory of {device} is full"
    while images > 1:
        images //= 2
        if _fits(config, device, images):
            return f"{full}; --batch-size {images * size} fits"
    return f"{full}; not even one image fits: choose a smaller --model, or another machine"


def _fits(config: Config, device: str, images: int) -> bool:
    """Whether the device has the memory to train on batches of `images` images."""
    gc.collect()
    try:
        model = build_model(config).to(device)
        freeze(config, model)
        optimizer = build_optimizer(config, model)
        batch = np.zeros((images, *input_shape(config)), config.dtype)
        for _ in range(2):
            loss = F.cross_entropy(model(Tensor(to_device(batch, device))), to_device(np.zeros(images, np.int64), device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step(loss)
        return True
    except MemoryError:
        return False
