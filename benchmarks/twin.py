"""A twin of train.py in PyTorch, for CIFAR-10: the same files, network and recipe; everything else is PyTorch's.

    python benchmarks/twin.py --model cifar-bn --recipe default --seed 0

PyTorch draws the order, crops, reflections, initial weights and dropout, so the result equals train.py's only on average. Prints
a line for each epoch, with the accuracy of one view and of the mean of an image and its reflection; then train.py's last line.
With --out DIR, the settings and the epochs are in DIR/config.json and DIR/metrics.jsonl, under the names of a run of train.py,
and the same command resumes a run that was stopped, after its last whole epoch.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from alexnet import datasets
from alexnet.commands.arguments import number
from alexnet.recipes import RECIPES, Recipe, find_recipe
from minidl.errors import UserError
from minidl.files import replacing


def network(batch_norm: bool) -> nn.Sequential:
    """alexnet.models.cifar_bn or cifar_lrn. Initial weights: He's in convolutions, N(0, .01²) in linear layers, biases 0."""

    def block(inputs, outputs, kernel, local=False):
        convolution = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)
        if batch_norm:
            return convolution, nn.BatchNorm2d(outputs), nn.ReLU()
        return convolution, nn.ReLU(), *([nn.LocalResponseNorm(5, 1e-4, 0.75, 2.0)] if local else [])

    net = nn.Sequential(
        *(*block(3, 96, 5, local=True), nn.MaxPool2d(3, 2)),
        *(*block(96, 256, 5, local=True), nn.MaxPool2d(3, 2)),
        *(*block(256, 384, 3), *block(384, 384, 3), *block(384, 256, 3), nn.MaxPool2d(3, 2), nn.Flatten()),
        *(nn.Linear(2304, 4096), nn.ReLU(), nn.Dropout(0.5)),
        *(nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout(0.5)),
        nn.Linear(4096, 10),
    )
    for layer in net:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=0.01)
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.zeros_(layer.bias)
    return net.to(memory_format=torch.channels_last)


def optimizer_of(net: nn.Module, recipe: Recipe) -> torch.optim.SGD:
    """SGD with the recipe's learning rate and weight decay for biases, including those of batch norm."""
    biases = {
        "params": [p for name, p in net.named_parameters() if name.endswith("bias")],
        "lr": recipe.lr * recipe.bias_lr,
        "weight_decay": recipe.weight_decay if recipe.bias_decay else 0.0,
    }
    others = {"params": [p for name, p in net.named_parameters() if not name.endswith("bias")]}
    return torch.optim.SGD(
        [others, biases], recipe.lr, recipe.momentum, weight_decay=recipe.weight_decay, nesterov=recipe.nesterov
    )


def augmented(images: torch.Tensor, reflect: torch.Tensor, recipe: Recipe) -> torch.Tensor:
    """Random crops of the padded images (N, 3, 32, 32); those with True in `reflect` are reflected."""
    if pad := recipe.crop_padding:
        padded = F.pad(images, (pad,) * 4, mode=recipe.padding_mode)
        windows = padded.unfold(2, 32, 1).unfold(3, 32, 1)  # (N, 3, 2 pad + 1, 2 pad + 1, 32, 32)
        top, left = torch.randint(0, 2 * pad + 1, (2, len(images)))
        images = windows[torch.arange(len(images)), :, top, left]
    return torch.where(reflect[:, None, None, None], images.flip(3), images) if recipe.reflection else images


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", choices=["cifar-bn", "cifar-lrn"], default="cifar-bn")
    p.add_argument("--recipe", choices=list(RECIPES), default="default")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--epochs", type=number(int, 1, 10_000, "a number from 1 to 10,000"), help="(default: the recipe's)")
    p.add_argument("--limit-train", type=int, default=None)
    p.add_argument("--data-dir", default=None)
    p.add_argument("--out", type=Path, metavar="DIR", help="folder of the run, new or to be resumed")
    args = p.parse_args()
    recipe = find_recipe(args.recipe, "cifar10", args.model)
    if recipe.schedule == "plateau":
        p.error("a plateau has no twin; choose another recipe")
    epochs = args.epochs or recipe.epochs
    torch.manual_seed(args.seed)
    try:
        dataset = datasets.load("cifar10", args.data_dir)
        train, test = dataset.train.first(args.limit_train, "--limit-train"), dataset.test
        settings = {key: vars(args)[key] for key in ("model", "recipe", "seed", "limit_train")}
        settings |= {"epochs": epochs, "threads": torch.get_num_threads(), "torch": torch.__version__}
        if args.out and (args.out / "config.json").exists():
            if json.loads((args.out / "config.json").read_text()) != settings:
                p.error(f"--out {args.out} has a run with other settings; choose another folder")
        elif args.out:
            args.out.mkdir(parents=True, exist_ok=True)
            with replacing(args.out / "config.json") as part:
                part.write_text(json.dumps(settings, indent=2) + "\n")
    except (UserError, OSError, ValueError) as error:
        p.error(str(error))
    mean, std = (torch.tensor(values, dtype=torch.float32)[:, None, None] for values in (dataset.pixels.mean, dataset.pixels.std))

    def normalised(images: torch.Tensor) -> torch.Tensor:
        return ((images - mean) / std).contiguous(memory_format=torch.channels_last)

    images, labels = torch.from_numpy(np.ascontiguousarray(train.images)), torch.from_numpy(train.labels.astype(np.int64))
    tested, right = torch.from_numpy(np.ascontiguousarray(test.images)), torch.from_numpy(test.labels.astype(np.int64))
    net = network(args.model == "cifar-bn")
    optimizer = optimizer_of(net, recipe)
    steps = -(-len(images) // recipe.batch_size)
    if recipe.schedule == "step":
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, recipe.step_epochs * steps)
    else:
        rates = [group["lr"] for group in optimizer.param_groups]
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, epochs * steps, cycle_momentum=False)
    rows = restored(args.out, net, optimizer, schedule)
    for epoch in range(len(rows), epochs):
        net.train()
        started, total, hits = time.perf_counter(), 0.0, 0
        sides = torch.rand(len(images)) < 0.5
        for places in torch.randperm(len(images)).split(recipe.batch_size):
            logits = net(normalised(augmented(images[places].float(), sides[places], recipe)))
            loss = F.cross_entropy(logits, labels[places], label_smoothing=recipe.label_smoothing)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total, hits = total + loss.item() * len(places), hits + int((logits.argmax(1) == labels[places]).sum())
        row = {"epoch": epoch + 1, "train_loss": total / len(images), "train_accuracy": hits / len(images)}
        row["seconds"] = round(time.perf_counter() - started, 3)
        row |= evaluated(net, tested, right, normalised, recipe.batch_size)
        print(
            "epoch {epoch}/{epochs}: train loss {train_loss:.4f} accuracy {train_accuracy:.4f}, test loss {test_loss:.4f} "
            "accuracy {test_accuracy:.4f}, two views {test_accuracy_views:.4f}, {seconds:.1f} s".format(epochs=epochs, **row),
            flush=True,
        )
        rows.append(row)
        if args.out:
            save(args.out, rows, net, optimizer, schedule)
    print(f"test loss: {rows[-1]['test_loss']:.4f} - accuracy: {rows[-1]['test_accuracy']:.4f}")


def save(out: Path, rows: list[dict[str, float]], *parts: Any) -> None:
    """Write metrics.jsonl, and a checkpoint with the states of the network, the optimiser and the schedule."""
    with replacing(out / "metrics.jsonl") as part:
        part.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with replacing(out / "checkpoint.pt") as part:
        torch.save({"rows": rows, "parts": [each.state_dict() for each in parts], "random": torch.get_rng_state()}, part)


def restored(out: Path | None, *parts: Any) -> list[dict[str, float]]:
    """The epochs of the last checkpoint, none if there is none. Gives the parts and the random numbers their states."""
    if out is None or not (out / "checkpoint.pt").exists():
        return []
    saved = torch.load(out / "checkpoint.pt", weights_only=True)
    for each, state in zip(parts, saved["parts"], strict=True):
        each.load_state_dict(state)
    torch.set_rng_state(saved["random"])
    return saved["rows"]


@torch.no_grad()
def evaluated(net, images, labels, normalised, batch_size) -> dict[str, float]:
    """Loss and accuracy of one view, and accuracy of the mean probabilities of an image and its reflection."""
    net.eval()
    loss, hits, hits_of_two = 0.0, 0, 0
    for part, right in zip(images.split(batch_size), labels.split(batch_size), strict=True):
        one, other = (net(normalised(view.float())) for view in (part, part.flip(3)))
        loss += F.cross_entropy(one, right, reduction="sum").item()
        hits += int((one.argmax(1) == right).sum())
        hits_of_two += int(((one.softmax(1) + other.softmax(1)).argmax(1) == right).sum())
    sums = {"test_loss": loss, "test_accuracy": hits, "test_accuracy_views": hits_of_two}
    return {name: value / len(images) for name, value in sums.items()}


if __name__ == "__main__":
    main()
