"""What a training asks of the device: an update, and the outputs on the validation images.

Where memory, or the number of images of a forward pass, does not suffice, it says which settings would.

Shapes: B images of a batch over all processes, b those of this process, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from raregrade.config import TrainConfig
from raregrade.models.backbone import Classifier
from raregrade.training.feed import VALIDATED_FOR_EACH, Positions, TrainingFeed, ValidationFeed
from raregrade.training.memory import is_out_of_memory, is_single_image, out_of_memory_error, single_image_error
from raregrade.training.update import Updater

Passes = list[tuple[Tensor, Tensor]]


class DeviceWork:
    """The model of ``updater`` at work on what ``feed`` and ``validation`` bring to its device."""

    def __init__(
        self, config: TrainConfig, updater: Updater, feed: TrainingFeed, validation: ValidationFeed, num_outputs: int
    ) -> None:
        self.config = config
        self.updater = updater
        self.feed = feed
        self.validation = validation
        self.num_outputs = num_outputs

    def update(self, passes: Iterator[Passes], batch: Positions, lr: float) -> Tensor:
        """Augment the next of ``passes``, those of ``batch``, and update the weights by them.

        Returns:
            As ``Updater.update``.

        Raises:
            UserError: memory does not hold them, or BatchNorm gets a single image; says which settings would do.
        """
        try:
            return self.updater.update(next(passes), lr)
        except (RuntimeError, MemoryError, ValueError) as err:
            if is_single_image(err):
                processes = self.updater.processes.world
                raise single_image_error(self.config, batch=len(batch), processes=processes) from err
            if not is_out_of_memory(err):
                raise
            images = len(batch) // self.feed.parts
            raise out_of_memory_error(err, self.config, self.updater.device, images) from err

    def validation_logits(self, model: Classifier) -> Tensor:
        """Outputs of ``model`` on the validation images of all processes, as ``ValidationFeed.logits``.

        Raises:
            UserError: memory does not hold as many images as are validated at once; says which settings would do.
        """
        feed = self.validation
        try:
            return feed.logits(model, self.num_outputs)
        except (RuntimeError, MemoryError) as err:
            if not is_out_of_memory(err):
                raise
            raise out_of_memory_error(
                err,
                self.config,
                self.updater.device,
                len(feed.batches[0]),
                for_each=VALIDATED_FOR_EACH,
                in_pass=self.config.batch_size // self.feed.parts,
            ) from err
