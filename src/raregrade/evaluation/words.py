"""A comparison in sentences: the verdict, the doubt, and what more patients or seeds would show.

Works on the content of comparison.json (and run.json) alone and imports nothing heavy, so that a command can print it
at once. What speaks against a model comes first, and nothing is claimed that the one test on the test split does not
support.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from raregrade.evaluation.naming import bounds, lower_is_better, metric_name, signed


def advice(comparison: Mapping[str, Any]) -> str:
    """Which loss to train with and how sure that is."""
    claim = comparison["claim"]
    sentences = [*_alarmed(comparison), _verdict(comparison)]
    if claim["verdict"] in ("worse", "contradicted"):
        sentences = [sentences[-1], *sentences[:-1]]  # that the choice is wrong matters more than what is wrong with it
    return " ".join(sentences)


def heading(comparison: Mapping[str, Any]) -> str:
    """The advice in a few words."""
    claim = comparison["claim"]
    loss, baseline, verdict = claim["loss"], claim["baseline"], claim["verdict"]
    if verdict in ("worse", "contradicted"):
        return f"Test contradicts validation: keep {baseline}"
    counting = dict.fromkeys((loss, comparison["recommended"]["loss"]))
    alarmed = [name for name in counting if comparison["losses"][name]["alarms"]]
    if alarmed:
        return f"{' and '.join(alarmed)} raise{'s' if len(alarmed) == 1 else ''} an alarm"
    return {
        "alone": f"Only {loss} was compared",
        "baseline": f"Keep {baseline}, the baseline",
        "better": f"Train with {loss}",
        "untested": f"{loss} leads, but nothing is shown yet",
        "not_distinguishable": f"{loss} leads, but cannot be distinguished from {baseline}",
    }[verdict]


def power_line(comparison: Mapping[str, Any], minutes: float | None = None) -> str:
    """What the patients and models at hand could have shown, and what the observed difference would need.

    Args:
        comparison: content of comparison.json.
        minutes: of one training; None where it is unknown.
    """
    claim = comparison["claim"]
    reach, difference = claim["power"], claim["difference"]
    if reach is None or difference is None or reach["detectable"] is None:
        return ""
    name, unit = metric_name(claim["metric"]), comparison["unit"]
    if difference["patients_only"]:
        two, three = claim["least"]["2"], claim["least"]["3"]
        return (
            f"Power: if training involved no luck, these {unit} would reveal a true difference of "
            f"{reach['detectable']:.3f} in {name} four times out of five. One seed cannot tell how much luck it "
            f"involves. With a second seed per loss, a difference of {two:.1f} standard errors could be claimed; a "
            f"third lowers that to {three:.1f} or less."
            f"{_time(1, minutes)}"
        )
    text = (
        f"Power: with these {unit} and {_models(comparison)}, a true difference of {reach['detectable']:.3f} in {name} "
        "would be found four times out of five."
    )
    if difference["p"] is not None and difference["p"] <= 1 - comparison["inference"]["confidence"]:
        return text
    observed = f"One as large as the observed {signed(difference['mean'])}"
    if reach["seeds_needed"] is None:
        return f"{text} {observed} needs more {unit}; more seeds alone would not show it."
    what = "seeds" if comparison["folds"] is None else "models"
    more = reach["seeds_needed"] - min(_count(comparison, loss) for loss in (claim["tested"], claim["baseline"]))
    return f"{text} {observed} needs {reach['seeds_needed']} {what} per loss.{_time(more, minutes)}"


def looks_line(comparison: Mapping[str, Any], looks: int | None) -> str:
    """How often the test split was looked at; empty where that is not known."""
    if looks is None:
        return ""
    if looks == 1:
        return "This is the first comparison made on this test split."
    return (
        f"This test split has been used by {looks} comparisons, including this one. Choosing by their results means "
        f"choosing on test {comparison['unit']}, and the best of several looks is partly luck."
    )


def alarm_texts(alarms: Sequence[Mapping[str, Any]]) -> list[str]:
    """What alarms (as JSON) say, the worst first: one text for a class, that of the test split where it has one."""
    order = {"never_predicted": 0, "low_recall": 1, "auroc_below_chance": 2, "recall_regression": 3}
    kept: dict[Any, Mapping[str, Any]] = {}
    for alarm in sorted(alarms, key=lambda a: (order.get(a["kind"], 4), a["split"] != "test")):
        kept.setdefault(alarm["class_name"], alarm)
    return [alarm["text"] for alarm in kept.values()]


def sentence_on_rules(comparison: Mapping[str, Any]) -> str:
    """Whether the lead of the chosen loss remains when both losses are decided by one rule; empty where it does."""
    claim = comparison["claim"]
    loss, baseline, metric = claim["loss"], claim["baseline"], claim["metric"]
    losses = comparison["losses"]
    own, other = (losses[name]["metrics"].get(metric) for name in (loss, baseline))
    if loss == baseline or own is None or other is None:
        return ""
    sign = -1 if lower_is_better(metric) else 1
    lead = sign * (own["mean"] - other["mean"])
    values = {rule: found["metrics"].get(metric) for rule, found in losses[baseline]["rules"].items()}
    values = {rule: value for rule, value in values.items() if value is not None}
    if lead <= 0 or not values:
        return ""
    sentences = []
    best = max(values, key=lambda rule: sign * values[rule])
    left = sign * (own["mean"] - values[best])
    if left < lead / 2:
        share = "all" if left <= 0 else "most"
        sentences.append(
            f"{baseline} decided {_by(best)} reaches {metric_name(metric)} {values[best]:.3f}: {share} of {loss}'s "
            "lead comes from the decision rule, which would help any loss."
        )
    level = 1 - comparison["inference"]["confidence"]
    found = {rule: entry["difference"].get(metric) for rule, entry in losses[loss]["rules"].items()}
    lost = [
        f"{_by(rule)} {gap(difference)} ({p_text(difference['p'])})"
        for rule, difference in found.items()
        if difference is not None
        and (sign * difference["mean"] <= 0 or (difference["p"] is not None and difference["p"] > level))
    ]
    if lost and claim["verdict"] == "better":
        sentences.append(f"Decided alike, {loss} is not shown to be better: {', '.join(lost)}.")
    return " ".join(sentences)


def sentence_on_validation(comparison: Mapping[str, Any]) -> str:
    """How the losses stand on the split that chose."""
    name, loss = f"val_{comparison['selection_metric']}", comparison["winner"]["loss"]
    entry = comparison["losses"][loss]
    text = f"Validation chose {loss}: {metric_name(name)} {cell(entry['metrics'][name])}"
    difference = entry["difference"].get(name)
    if difference is not None:
        text += f", {gap(difference)} over {comparison['baseline']}"
    return f"{text}. This split also chose the epochs, so its values are flattering."


def cell(value: Mapping[str, Any] | None, *, with_bounds: bool = True) -> str:
    """``0.701 [0.652, 0.744]``, or a dash."""
    if value is None:
        return "-"
    return f"{value['mean']:.3f} {bounds(value['low'], value['high']) if with_bounds else ''}".rstrip()


def gap(difference: Mapping[str, Any]) -> str:
    """``+0.031 [-0.010, 0.072]``."""
    return f"{signed(difference['mean'])} {bounds(difference['low'], difference['high'])}".rstrip()


def p_text(value: float | None) -> str:
    if value is None:
        return "no test"
    return f"p = {value:.3f}" if value >= 0.001 else "p < 0.001"


def models_text(comparison: Mapping[str, Any]) -> str:
    """What means are over: ``mean of 3 seeds``, ``mean of 5 folds × 2 seeds``, ``one seed``."""
    counts = sorted({len(entry["seeds"]) for entry in comparison["losses"].values()})
    seeds = f"{counts[0]} to {counts[-1]} seeds" if len(counts) > 1 else "one seed" if counts == [1] else ""
    seeds = seeds or f"{counts[0]} seeds"
    if comparison["folds"] is not None:
        return f"mean of {comparison['folds']} folds × {seeds}"
    return seeds if counts == [1] else f"mean of {seeds}"


def training_is_in(comparison: Mapping[str, Any]) -> bool:
    """Whether the intervals of all losses contain the luck of training."""
    return comparison["folds"] is not None or min(len(e["seeds"]) for e in comparison["losses"].values()) > 1


def _verdict(comparison: Mapping[str, Any]) -> str:
    claim = comparison["claim"]
    loss, baseline, difference = claim["loss"], claim["baseline"], claim["difference"]
    test = metric_name(claim["metric"]) + (" (lower is better)" if lower_is_better(claim["metric"]) else "")
    value = comparison["losses"][loss]["metrics"]
    validation = f"val_{comparison['selection_metric']}"
    if claim["verdict"] == "alone":
        return f"Only {loss} was compared: {metric_name(validation)} {cell(value[validation])}."
    if claim["verdict"] == "baseline":
        return _about_baseline(comparison, test)
    lead = comparison["losses"][loss]["difference"].get(validation)
    leads = f"{loss} leads on validation ({signed(lead['mean'])} over {baseline})" if lead else f"{loss} leads"
    if difference is None:
        return f"Nothing is claimed: {leads}, and {test} is not defined for both."
    tested = f"{test}: {gap(difference)}, {p_text(difference['p'])}"
    if claim["verdict"] == "untested":
        return _untested(comparison, leads, test, tested)
    if claim["verdict"] == "better" and comparison["recommended"]["loss"] != loss:
        return (
            f"On average, {loss} is better than {baseline} on the test split ({tested}), but an average cannot show "
            f"what the alarm is about. Keep {baseline}."
        )
    return {
        "better": (
            f"Train with {loss}: {test} {cell(value[claim['metric']])}, {gap(difference)} over {baseline} "
            f"({p_text(difference['p'])}): clearly better than the baseline on the test split, as on validation."
        ),
        "worse": (
            f"Test contradicts validation: {loss}, which validation chose, is worse than {baseline} on the test split "
            f"({tested}). Keep {baseline}."
        ),
        "contradicted": (
            f"Test contradicts validation: {leads} but trails on the test split ({tested}). "
            f"The two cannot be distinguished. Keep {baseline}."
        ),
        "not_distinguishable": (
            f"No loss is shown to be better than {baseline}: {leads}, but on the test split the two cannot be "
            f"distinguished ({tested})."
        ),
    }[claim["verdict"]]


def _untested(comparison: Mapping[str, Any], leads: str, test: str, tested: str) -> str:
    claim = comparison["claim"]
    if claim["objection"]:
        return f"Nothing is claimed, because {claim['objection']}: {leads}; on the test split: {tested}."
    difference = gap(claim["difference"])
    if claim["difference"]["patients_only"]:
        return (
            f"Nothing is claimed from one seed: {leads}; on the test split the difference in {test} is {difference}, "
            "and an unknown part of it is luck in training."
        )
    return (
        f"Nothing is claimed: {leads}; on the test split the difference in {test} is {difference}, but neither "
        f"{comparison['unit']} nor seeds vary, so it cannot be tested."
    )


def _about_baseline(comparison: Mapping[str, Any], test: str) -> str:
    """The baseline leads on validation: which is no proof against the others either."""
    claim, baseline = comparison["claim"], comparison["baseline"]
    following, difference = claim["tested"], claim["difference"]
    chosen = f"Keep {baseline}, the baseline: no other loss did better on validation"
    if difference is None:
        return f"{chosen}, and {test} is not defined for the runner-up, {following}."
    tested = f"{test}: {gap(difference)}, {p_text(difference['p'])}"
    if difference["p"] is None:
        return f"{chosen}. That is no proof: the runner-up, {following}, was not tested against it ({tested})."
    gain = (-1 if lower_is_better(claim["metric"]) else 1) * difference["mean"]
    if difference["p"] > 1 - comparison["inference"]["confidence"]:
        return (
            f"{chosen}. That does not prove that none is better: on the test split, the runner-up, {following}, cannot "
            f"be distinguished from it ({tested})."
        )
    if gain < 0:
        return f"{chosen}, and on the test split the runner-up, {following}, is clearly worse ({tested})."
    return (
        f"Test contradicts validation, which chose {baseline}, the baseline: on the test split the runner-up, "
        f"{following}, is better ({tested}). Keep {baseline} until more {comparison['unit']} or seeds settle it."
    )


def _alarmed(comparison: Mapping[str, Any]) -> list[str]:
    """One sentence for each model that counts and raises an alarm: the chosen one, then the baseline."""
    names = dict.fromkeys((comparison["claim"]["loss"], comparison["baseline"]))
    return [f"Alarm: {name} {_speaking(comparison, name)}." for name in names if _speaking(comparison, name)]


def _speaking(comparison: Mapping[str, Any], loss: str) -> str:
    texts = alarm_texts(comparison["losses"][loss]["alarms"])
    rest = f", and {len(texts) - 2} more" if len(texts) > 2 else ""
    return ", ".join(texts[:2]) + rest


def _by(rule: str) -> str:
    return "at the median" if rule == "median" else f"by {rule.replace('_', ' ')}"


def _count(comparison: Mapping[str, Any], loss: str) -> int:
    """Models of ``loss``."""
    return len(comparison["losses"][loss]["seeds"]) * (comparison["folds"] or 1)


def _models(comparison: Mapping[str, Any]) -> str:
    claim = comparison["claim"]
    own, other = (_count(comparison, loss) for loss in (claim["tested"], claim["baseline"]))
    what = "seeds" if comparison["folds"] is None else "models"
    return f"{own} {what} per loss" if own == other else f"{own} and {other} {what}"


def _time(more: int, minutes: float | None) -> str:
    """What ``more`` trainings of each of the two losses cost."""
    if minutes is None or more < 1:
        return ""
    total = 2 * more * minutes
    shown = f"{total:.0f} minutes" if 2 <= total < 120 else f"{total / 60:.0f} hours" if total >= 120 else "a minute"
    what = "One more for each of the two takes" if more == 1 else f"{more} more for each of the two take"
    return f" {what} about {shown} of training."
