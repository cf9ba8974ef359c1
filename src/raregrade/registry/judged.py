"""The verdict on one model: what the gate says of its numbers, and what speaks against it whatever its average."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from raregrade.config import AlarmConfig, GateRule
from raregrade.evaluation.alarms import Alarm, worst_first
from raregrade.evaluation.words import alarm_texts
from raregrade.registry.gate import GateResult, Reference, evaluate_gate

# Why nothing was tested against a champion.
NO_DATASET = "both have to predict the same images. Give the prepared dataset (`--data`)"
NOT_WATCHED = "no alarm could be raised against the champion: no dataset was given"


@dataclass(frozen=True)
class Judged:
    """A verdict and the alarms that went into it.

    Attributes:
        verdict: of the gate.
        alarms: worst first, each once.
    """

    verdict: GateResult
    alarms: tuple[Alarm, ...] = ()

    @classmethod
    def by(
        cls,
        rules: Sequence[GateRule],
        metrics: Mapping[str, float],
        reference: Reference | None,
        *,
        model: str,
        alarms: Sequence[Alarm],
        config: AlarmConfig,
    ) -> Judged:
        """Apply ``rules`` and ``alarms``.

        Args:
            rules, metrics, reference: as ``evaluate_gate`` takes them.
            model: what sentences call the model.
            alarms: about it. Of two of one kind about one class and split, the first counts.
            config: whether alarms refuse.
        """
        distinct: dict[tuple[str, str, str | None], Alarm] = {}
        for alarm in alarms:
            distinct.setdefault((alarm.kind, alarm.split, alarm.class_name), alarm)
        found = cls(GateResult(), tuple(worst_first(list(distinct.values()))))
        verdict = evaluate_gate(rules, metrics, reference, alarms=found.sentences(model), refuse=config.refuse)
        return replace(found, verdict=verdict)

    def sentences(self, model: str) -> list[str]:
        """The alarms as sentences about ``model``: for each class its worst, on the test split where there is one."""
        return [f"{model} {text}" for text in alarm_texts([alarm.to_json() for alarm in self.alarms])]

    def refusing(self, reason: str) -> Judged:
        """Refused for ``reason`` as well, which is named after what refuses already."""
        return replace(self, verdict=replace(self.verdict, refusals=(*self.verdict.refusals, reason)))

    def remarking(self, remark: str) -> Judged:
        """With one remark more."""
        return replace(self, verdict=replace(self.verdict, remarks=(*self.verdict.remarks, remark)))
