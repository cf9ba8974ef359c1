"""Where memory or the images of a forward pass do not suffice, one sentence says which settings would do."""

from __future__ import annotations

import re

import pytest
import torch

from raregrade.config import TrainConfig
from raregrade.data.loader import ImageBatches
from raregrade.errors import ConfigError, UserError
from raregrade.models.backbone import Classifier
from raregrade.training import feed, memory
from raregrade.training.checkpoint import Checkpoint
from raregrade.training.loop import fit

CPU_WORDS = "[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't allocate memory"


def run(section, dataset, reporter):
    return fit(section, dataset, seed=1, metric="qwk", reporter=reporter, checkpoint=Checkpoint(None))


def message_of(section, dataset, reporter) -> str:
    with pytest.raises(UserError) as caught:
        run(section, dataset, reporter())
    assert caught.value.exit_code == 2
    message = str(caught.value)
    assert "\n" not in message
    return message


def advised(message: str, settings: dict[str, object]) -> list[dict[str, object]]:
    """The settings that ``message`` advises in place of ``settings``."""
    return [settings | {key: int(value)} for key, value in re.findall(r"train\.(accumulate|batch_size)=(\d+)", message)]


@pytest.fixture
def limited(monkeypatch):
    """``limited(place, images)``: no memory for more than so many images at once in ``place``."""

    def limit(place: str, images: int, error: type[Exception] = RuntimeError) -> None:
        def refuse(number: int) -> None:
            if number > images:
                raise error(CPU_WORDS)

        if place == "augmentation":
            original = feed.apply_draws

            def apply_draws(batch, draws, config):
                refuse(len(batch))
                return original(batch, draws, config)

            monkeypatch.setattr(feed, "apply_draws", apply_draws)
        else:
            forward = Classifier.forward if place == "validation" else Classifier.forward_train

            def limited_forward(self, batch):
                refuse(len(batch))
                return forward(self, batch)

            monkeypatch.setattr(Classifier, forward.__name__, limited_forward)

    return limit


@pytest.mark.parametrize(
    "place", [("augmentation", MemoryError), ("augmentation", RuntimeError), ("training", RuntimeError)]
)
def test_without_memory_for_a_step_half_of_it_is_advised(prepared, section, reporter, limited, place) -> None:
    limited(place[0], 6, place[1])
    message = message_of(section(epochs=1, batch_size=24), prepared, reporter)
    assert message.startswith("this machine has too little memory for 24 images at once (train.batch_size = 24). ")
    assert "Set train.accumulate=2, which keeps the batch and sees it in 2 parts, or train.batch_size=12," in message


@pytest.mark.parametrize("place", ["augmentation", "training", "validation"])
def test_what_the_sentence_advises_fits_and_is_taken(prepared, section, reporter, limited, place: str) -> None:
    """Also where no half of the batch does: what a batch is split into has to divide it."""
    settings = {"epochs": 1, "batch_size": 26, "backbone": "test_convnext"}
    limited(place, 7)
    for choice in (0, 1):
        followed = settings
        for _ in range(4):
            try:
                history = run(section(**followed), prepared, reporter()).history
                break
            except UserError as err:
                followed = advised(str(err), followed)[choice]
        assert len(history) == 1


def test_without_memory_for_validation_the_sentence_says_so(prepared, section, reporter, limited) -> None:
    limited("validation", 10)
    message = message_of(section(epochs=1, batch_size=8), prepared, reporter)
    images = len(prepared.rows("val"))
    assert f"too little memory for {min(32, images)} images at once (4 of validation for each in a forward" in message
    assert "train.accumulate=2" in message
    assert "train.batch_size=4" in message


def test_where_the_fewest_images_of_validation_do_not_fit_others_are_advised(
    prepared, section, reporter, limited
) -> None:
    limited("validation", 2)
    message = message_of(section(epochs=1, batch_size=8, accumulate=8, backbone="test_convnext"), prepared, reporter)
    assert message.endswith("Take a smaller data.image_size or another train.backbone.")


def test_without_memory_for_the_images_the_sentence_names_them(prepared, section, reporter, monkeypatch) -> None:
    def load(self):
        raise RuntimeError(CPU_WORDS)

    monkeypatch.setattr(ImageBatches, "_load_all", load)
    message = message_of(section(epochs=1), prepared, reporter)
    images = len(prepared.rows("train")) + len(prepared.rows("val"))
    assert message == (
        f"this machine has too little memory for the network resnet10t and {images} images of 32 px. "
        "Free some, or take a smaller data.image_size or another train.backbone."
    )


def test_without_memory_while_images_are_streamed_the_sentence_is_that_of_a_step(
    prepared, section, reporter, monkeypatch
) -> None:
    original = ImageBatches._read

    def read(self, batch):
        if len(batch) > 4:
            raise MemoryError("Unable to allocate 3.00 KiB for an array with shape (16, 32, 32, 3)")
        return original(self, batch)

    monkeypatch.setattr("raregrade.data.loader.free_memory", lambda device: 0.0)
    monkeypatch.setattr(ImageBatches, "_read", read)
    message = message_of(section(epochs=1, batch_size=16), prepared, reporter)
    assert "for 16 images at once (train.batch_size = 16). Set train.accumulate=2" in message


def test_other_errors_of_torch_keep_their_own_words(prepared, section, reporter, monkeypatch) -> None:
    def forward(self, batch):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(Classifier, "forward_train", forward)
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        run(section(epochs=1), prepared, reporter())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"batch_size": 1},
            "train.batch_size = 1 is one image at a time, and BatchNorm in resnet10t needs two where its maps have one "
            "pixel. Set train.batch_size=2 or more, or take another train.backbone",
        ),
        (
            {"batch_size": 8, "accumulate": 8},
            "train.batch_size = 8 in 8 forward passes (train.accumulate) is one image at a time, and BatchNorm in "
            "resnet10t needs two where its maps have one pixel. Set train.batch_size=16 or more, or lower "
            "train.accumulate, or take another train.backbone",
        ),
    ],
)
def test_a_forward_pass_of_one_image_with_batch_norm_is_refused_in_one_line(
    prepared, section, reporter, settings, said
) -> None:
    with pytest.raises(ConfigError) as caught:
        run(section(epochs=1, **settings), prepared, reporter())
    assert str(caught.value) == said
    assert caught.value.exit_code == 2


def test_the_line_about_one_image_names_processes_and_a_small_split() -> None:
    config = TrainConfig(batch_size=8, accumulate=2)
    assert str(memory.single_image_error(config, batch=8, processes=4)).startswith(
        "train.batch_size = 8 in 2 forward passes (train.accumulate) of each of 4 processes is one image at a time"
    )
    assert str(memory.single_image_error(TrainConfig(), batch=3, processes=3)).startswith(
        "train.batch_size = 32, of which the training split has 3 in 3 processes is one image at a time"
    )


def test_a_forward_pass_of_one_image_trains_where_nothing_is_normalised_over_it(prepared, section, reporter) -> None:
    assert len(run(section(epochs=1, batch_size=1, backbone="test_convnext"), prepared, reporter()).history) == 1


def test_a_split_of_one_image_more_than_whole_batches_trains(prepared, section, reporter) -> None:
    images = len(prepared.rows("train"))
    size = next(n for n in range(2, images) if images % n == 1)
    told = reporter()
    assert len(run(section(epochs=1, batch_size=size), prepared, told).history) == 1
    assert told.steps == images // size


def test_the_message_of_batch_norm_is_recognised_as_torch_says_it() -> None:
    with pytest.raises(ValueError, match="channel") as caught:
        torch.nn.BatchNorm2d(3)(torch.zeros(1, 3, 1, 1))
    assert memory.is_single_image(caught.value)
    assert not memory.is_single_image(ValueError("out of range"))
