"""Recipes: how a network is trained. Each value says where it comes from."""

import dataclasses

from minidl.errors import UserError


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Hyper-parameters of one way to train."""

    epochs: int
    batch_size: int
    lr: dict[str, float]  # by model: batch norm bears a larger rate than local response normalisation
    momentum: float
    weight_decay: float
    schedule: str  # "one-cycle": up to lr and down to zero, every step; "step": lr, a tenth of it after step_epochs
    step_epochs: int
    crop_padding: int  # pixels that a random crop may shift the image by; 0 for no crops
    reflection: bool


RECIPES = {
    # The deck: ten epochs, no augmentation. It does not tell its optimiser, so the rest is the paper's section 5: batches of
    # 128, momentum .9, decay .0005, a rate of .01 that is divided by ten once the error no longer falls.
    "deck": Recipe(
        epochs=10,
        batch_size=128,
        lr={"cifar-bn": 0.01, "cifar-lrn": 0.01},
        momentum=0.9,
        weight_decay=5e-4,
        schedule="step",
        step_epochs=8,
        crop_padding=0,
        reflection=False,
    ),
    # Ours: the paper's update and augmentation (section 4.1, for 32 x 32 images as crops after padding by 4: He et al.
    # 2015, section 4.2), with the one-cycle schedule (Smith and Topin 2017), which needs fewer epochs than steps do.
    "default": Recipe(
        epochs=10,
        batch_size=128,
        lr={"cifar-bn": 0.05, "cifar-lrn": 0.02},
        momentum=0.9,
        weight_decay=5e-4,
        schedule="one-cycle",
        step_epochs=0,
        crop_padding=4,
        reflection=True,
    ),
    # For the 16 x 16 handwritten digits: shifts by up to one of their original pixels; no reflection, as a mirrored digit is
    # another sign; small batches, as there are only 1,437 images.
    "digits": Recipe(
        epochs=8,
        batch_size=32,
        lr={"cifar-bn": 0.02, "cifar-lrn": 0.01},
        momentum=0.9,
        weight_decay=5e-4,
        schedule="one-cycle",
        step_epochs=0,
        crop_padding=2,
        reflection=False,
    ),
}


def recipe(name: str | None, data: str) -> tuple[str, Recipe]:
    """(name, recipe); without a name, the one made for the data set."""
    name = name or ("digits" if data == "digits" else "default")
    if name not in RECIPES:
        raise UserError(f"--recipe {name}: no such recipe; there are {', '.join(RECIPES)}")
    return name, RECIPES[name]
