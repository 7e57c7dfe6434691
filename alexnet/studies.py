"""The studies of `python -m alexnet reproduce`: the study deck's table, and the claims of Krizhevsky 2012, the AlexNet paper.

Each claim is tested with networks, or training, that differ in one thing.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from .recipes import RECIPES, Recipe, find_recipe

Measure = Literal["test error", "epochs to 25 % training error"]


@dataclasses.dataclass(frozen=True)
class Arm:
    """A network and a way to train it, which a study compares with others."""

    label: str
    model: str
    recipe: Recipe
    limit_train: int | None = None
    limit_test: int | None = None


@dataclasses.dataclass(frozen=True)
class Claim:
    """The claim that arm `better` has a lower measure than arm `worse`.

    A name that ends with a star stands for the best of the arms that begin with it. factor: how many times lower, if the claim
    says so.
    """

    text: str
    better: str
    worse: str
    factor: float | None = None


@dataclasses.dataclass(frozen=True)
class Study:
    """Arms and the claims about them. arms: name -> number of runs, with the seeds 0, 1, 2, ... source: of the claims."""

    title: str
    source: str
    arms: Mapping[str, int]
    claims: tuple[Claim, ...] = ()
    measure: Measure = "test error"

    def runs(self) -> list[tuple[str, int]]:
        """(arm, seed) of each run: first all arms with the first seed."""
        return sorted(((arm, seed) for arm, count in self.arms.items() for seed in range(count)), key=lambda run: run[1])


# --- the study deck's table -------------------------------------------------------------------------------------------------


def _whole(model: str, recipe: str) -> Arm:
    """An arm with the full training set, as train.py trains it."""
    return Arm(f"{model}, recipe {recipe}", model, find_recipe(recipe, "cifar10", model))


# --- the paper's claims, at a reduced size ----------------------------------------------------------------------------------

# A quarter of the kernels, 10,000 training images, five epochs. Batches of 32, as with batches of 128 there are only 395 steps.
# Momentum and weight decay are those of Krizhevsky 2012, section 5; the schedule and the size of the crops are recipe default's.
REDUCED = Recipe(
    name="reduced",
    epochs=5,
    batch_size=32,
    lr=0.01,
    momentum=0.9,
    weight_decay=5e-4,
    bias_lr=1.0,
    bias_decay=True,
    schedule="one-cycle",
    step_epochs=0,
    crop_padding=2,
    reflection=True,
)
FEWER = 10_000  # training images


def _reduced(label: str, model: str = "small-lrn", **changes: Any) -> Arm:
    return Arm(label, model, dataclasses.replace(REDUCED, **changes), FEWER)


def _overfitting(label: str, model: str = "small-lrn", epochs: int = 20, **changes: Any) -> Arm:
    """A quarter of the images, each seen more often, so that the network overfits without dropout and augmentation."""
    recipe = dataclasses.replace(REDUCED, epochs=epochs, **changes)
    return Arm(f"{label}, {epochs} epochs", model, recipe, FEWER // 4, 2_000)


REGULARISERS: dict[str, tuple[str, dict[str, Any]]] = {
    "regularised": ("dropout, crops and reflections", {}),
    "no-dropout": ("no dropout", {"model": "small-no-dropout"}),
    "no-augmentation": ("no augmentation", {"crop_padding": 0, "reflection": False}),
    "reflections": ("reflections", {"crop_padding": 0}),
    "crops": ("crops", {"reflection": False}),
}


# --- figure 1 ---------------------------------------------------------------------------------------------------------------


def _figure_1(activation: str, lr: float, epochs: int) -> Arm:
    """An arm without regularisation and augmentation, with a constant learning rate."""
    unregularised = dataclasses.replace(
        RECIPES["deck"], name="figure-1", epochs=epochs, lr=lr, weight_decay=0.0, schedule="step", step_epochs=epochs
    )
    return Arm(f"{activation}, rate {lr}", f"four-layers-{activation.lower()}", unregularised, FEWER, 1_000)


RATES = {"ReLU": (0.003, 0.01, 0.03), "tanh": (0.003, 0.01, 0.03, 0.1)}
BEST_RATES = ("relu-0.01", "tanh-0.03")  # each rate was tried with one seed, then these with two more
EPOCHS = {"ReLU": 24, "tanh": 36}  # enough to reach 25 % training error at the best of the rates

ARMS: dict[str, Arm] = {
    "cifar-bn-default": _whole("cifar-bn", "default"),
    "cifar-lrn-default": _whole("cifar-lrn", "default"),
    "cifar-bn-deck": _whole("cifar-bn", "deck"),
    "cifar-lrn-deck": _whole("cifar-lrn", "deck"),
    **{f"{kind.lower()}-{rate}": _figure_1(kind, rate, EPOCHS[kind]) for kind, rates in RATES.items() for rate in rates},
    "base": _reduced("LRN as in the paper's code, no colour noise"),
    "bn": _reduced("batch normalisation", "small-bn"),
    "no-norm": _reduced("no normalisation", "small-none"),
    "lrn-paper": _reduced("LRN, alpha as printed in the paper", "small-lrn-paper"),
    "lrn-tensorflow": _reduced("LRN with TensorFlow's defaults", "small-lrn-tensorflow"),
    "pool-3-2": _reduced("pooling 3/2, overlapping", "small-pool-3-2"),
    "pool-2-2": _reduced("pooling 2/2", "small-pool-2-2"),
    **{name: _overfitting(label, **changes) for name, (label, changes) in REGULARISERS.items()},
    **{f"{name}-longer": _overfitting(label, epochs=60, **changes) for name, (label, changes) in REGULARISERS.items()},
    "color-noise": _reduced("crops, reflections and colour noise", color_noise=0.1),
    "towers": _reduced("two towers that meet", "small-towers"),
    "one-tower": _reduced("one tower of half the kernels", "small-one-tower"),
    "one-tower-longer": _reduced("one tower of half the kernels, as many multiply-adds", "small-one-tower", epochs=9),
    "towers-apart": _reduced("two towers that never meet", "small-towers-apart"),
    "towers-apart-wider": _reduced("two towers that never meet, as many parameters", "small-towers-apart-wider"),
    "towers-apart-longer": _reduced("two towers that never meet, as many multiply-adds", "small-towers-apart", epochs=6),
}

STUDIES: dict[str, Study] = {
    "deck": Study(
        "The study deck's table",
        "the study deck: accuracy .8114 (loss .7798) with batch normalisation, .7125 (.8295) with LRN, after ten epochs",
        {"cifar-bn-default": 3, "cifar-lrn-default": 1, "cifar-bn-deck": 1, "cifar-lrn-deck": 1},
    ),
    "relu": Study(
        "ReLU against tanh",
        "Krizhevsky 2012, section 3.1 and figure 1",
        {arm: 3 if arm in BEST_RATES else 1 for arm in ARMS if arm.startswith(("relu-", "tanh-"))},
        (Claim("ReLU reaches 25 % training error six times sooner than tanh", "relu-*", "tanh-*", factor=6.0),),
        measure="epochs to 25 % training error",
    ),
    "normalization": Study(
        "Normalisation",
        "Krizhevsky 2012, section 3.3: LRN lowers the error by 1.4 (top-1) and 1.2 points (top-5), on CIFAR-10 from 13 to 11 %",
        {"base": 3, "lrn-paper": 3, "lrn-tensorflow": 3, "no-norm": 3, "bn": 3},
        (
            Claim("LRN, as in the paper's code, is better than none", "base", "no-norm"),
            Claim("LRN, as printed in the paper, is better than none", "lrn-paper", "no-norm"),
            Claim("LRN, with TensorFlow's defaults, is better than none", "lrn-tensorflow", "no-norm"),
            Claim("the study deck: batch normalisation is better than LRN", "bn", "base"),
        ),
    ),
    "pooling": Study(
        "Overlapping pooling",
        "Krizhevsky 2012, section 3.4: better by .4 (top-1) and .3 points (top-5); the log of net 147 of its code: .39 and .30",
        {"pool-3-2": 5, "pool-2-2": 5},
        (Claim("overlapping pooling is better than 2/2", "pool-3-2", "pool-2-2"),),
    ),
    "dropout": Study(
        "Dropout",
        "Krizhevsky 2012, section 4.2: without it the network overfits substantially",
        {"regularised": 3, "no-dropout": 3, "regularised-longer": 3, "no-dropout-longer": 3},
        (
            Claim("dropout lowers the test error after 20 epochs", "regularised", "no-dropout"),
            Claim("the same after 60 epochs", "regularised-longer", "no-dropout-longer"),
        ),
    ),
    "augmentation": Study(
        "Augmentation",
        "Krizhevsky 2012, section 4.1: without it the network suffers from substantial overfitting",
        {f"{name}{end}": 3 for end in ("", "-longer") for name in ("regularised", "no-augmentation", "reflections", "crops")},
        (
            Claim("reflections are better than none after 20 epochs", "reflections", "no-augmentation"),
            Claim("crops are better than none after 20 epochs", "crops", "no-augmentation"),
            Claim("both are better than none after 20 epochs", "regularised", "no-augmentation"),
            Claim("reflections are better than none after 60 epochs", "reflections-longer", "no-augmentation-longer"),
            Claim("crops are better than none after 60 epochs", "crops-longer", "no-augmentation-longer"),
            Claim("both are better than none after 60 epochs", "regularised-longer", "no-augmentation-longer"),
        ),
    ),
    "towers": Study(
        "Two towers",
        "Krizhevsky 2012, section 3.2: better by 1.7 (top-1) and 1.2 points (top-5) than one of half the kernels; the logs of "
        "nets 145 and 150 of its code: 40.66 / 18.21 % with towers that meet, 41.83 / 19.33 % with towers that never meet",
        {
            "towers": 3,
            "one-tower": 3,
            "one-tower-longer": 3,
            "towers-apart": 3,
            "towers-apart-wider": 3,
            "towers-apart-longer": 3,
        },
        (
            Claim("two towers are better than one of half the kernels, at about as many parameters", "towers", "one-tower"),
            Claim("the same, with the one tower trained for as many multiply-adds", "towers", "one-tower-longer"),
            Claim("towers that meet are better than towers that never meet", "towers", "towers-apart"),
            Claim("the same, with the towers that never meet wider, at as many parameters", "towers", "towers-apart-wider"),
            Claim("the same, with the towers that never meet trained for as many multiply-adds", "towers", "towers-apart-longer"),
        ),
    ),
    "color-noise": Study(
        "Colour noise",
        "Krizhevsky 2012, section 4.1: better by over 1 point (top-1)",
        {"color-noise": 5, "base": 5},
        (Claim("colour noise is better than none", "color-noise", "base"),),
    ),
}
