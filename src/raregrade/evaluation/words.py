"""A comparison in sentences: the verdict, the doubt, and what more patients or seeds would show.

Works on the content of comparison.json alone and imports nothing heavy, so that a command can print it at once. What
speaks against a model comes first, and nothing is claimed that the one test on the test split does not support.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from raregrade.evaluation.naming import bounds, lower_is_better, metric_name, signed

# 5 % two-sided and 80 % power with S seeds a loss: t quantiles at 2(S - 1) degrees of freedom, in standard errors.
_REACH = {2: 5.4, 3: 3.7, 5: 3.2}


def advice(comparison: Mapping[str, Any]) -> str:
    """Which loss to train with and how sure that is."""
    sentences = [*_alarmed(comparison), _verdict(comparison)]
    if comparison["claim"]["verdict"] in ("worse", "contradicted"):
        sentences = [sentences[-1], *sentences[:-1]]  # that the choice is wrong matters more than what is wrong with it
    if comparison["recommended"]["loss"] != comparison["claim"]["loss"] and comparison["claim"]["verdict"] == "better":
        sentences.append(f"Because of the alarm, {comparison['baseline']} is what is recommended.")
    return " ".join(sentences)


def heading(comparison: Mapping[str, Any]) -> str:
    """The advice in a few words."""
    claim = comparison["claim"]
    loss, baseline, verdict = claim["loss"], claim["baseline"], claim["verdict"]
    alarmed = [name for name in dict.fromkeys((loss, baseline)) if comparison["losses"][name]["alarms"]]
    if loss in alarmed and verdict != "alone":
        return f"{' and '.join(alarmed)} raise{'s' if len(alarmed) == 1 else ''} an alarm"
    return {
        "alone": f"Only {loss} was compared",
        "baseline": f"Nothing did better than {baseline}, the baseline",
        "better": f"Train with {loss}",
        "worse": f"Test contradicts validation: keep {baseline}",
        "contradicted": f"Test contradicts validation: keep {baseline}",
        "untested": f"{loss} leads, and nothing is shown yet",
        "not_distinguishable": f"{loss} leads, not distinguishable from {baseline}",
    }[verdict]


def power_line(comparison: Mapping[str, Any]) -> str:
    """What the patients and seeds at hand could have shown, and what the observed difference would need."""
    claim = comparison["claim"]
    reach, difference = claim["power"], claim["difference"]
    if reach is None or difference is None or reach["detectable"] is None:
        return ""
    name, unit = metric_name(claim["metric"]), comparison["unit"]
    if difference["patients_only"]:
        return (
            f"Power: if training added no luck of its own, these {unit} would show a difference in {name} of "
            f"{reach['detectable']:.3f} four times in five. How much luck it adds, one seed cannot say. The smallest "
            f"difference that can be claimed, in standard errors, by seeds a loss: {_pairs()}."
        )
    text = (
        f"Power: these {unit} and {_seeds(comparison)} find a true difference in {name} of "
        f"{reach['detectable']:.3f} four times in five."
    )
    if claim["verdict"] in ("better", "worse"):
        return text
    if reach["seeds_needed"] is None:
        return (
            f"{text} One as small as the observed {signed(difference['mean'])} needs more {unit}: seeds alone won't do."
        )
    return (
        f"{text} One as large as the observed {signed(difference['mean'])} needs {reach['seeds_needed']} seeds a loss."
    )


def alarm_texts(alarms: Sequence[Mapping[str, Any]]) -> list[str]:
    """What alarms (as JSON) say, the worst first: one text for a class, that of the test split where it has one."""
    order = {"never_predicted": 0, "low_recall": 1, "auroc_below_chance": 2, "recall_regression": 3}
    kept: dict[Any, Mapping[str, Any]] = {}
    for alarm in sorted(alarms, key=lambda a: (order.get(a["kind"], 4), a["split"] != "test")):
        kept.setdefault(alarm["class_name"], alarm)
    return [alarm["text"] for alarm in kept.values()]


def sentence_on_rules(comparison: Mapping[str, Any]) -> str:
    """Whether the lead of the chosen loss remains when both losses are decided by one rule; empty without rules."""
    claim = comparison["claim"]
    loss, baseline, metric = claim["loss"], claim["baseline"], claim["metric"]
    if loss == baseline:
        return ""
    own, other = (comparison["losses"][name]["metrics"].get(metric) for name in (loss, baseline))
    rules = comparison["losses"][baseline]["rules"]
    if own is None or other is None or not rules:
        return ""
    sign = -1 if lower_is_better(metric) else 1
    values = {rule: found["metrics"][metric] for rule, found in rules.items() if metric in found["metrics"]}
    if not values:
        return ""
    best = max(values, key=lambda rule: sign * values[rule])
    lead, left = sign * (own["mean"] - other["mean"]), sign * (own["mean"] - values[best])
    if lead <= 0 or left >= lead / 2:
        return ""
    how = f"at the {best}" if best == "median" else f"by {best.replace('_', ' ')}"
    share = "all" if left <= 0 else "most"
    return (
        f"{baseline} decided {how} reaches {metric_name(metric)} {values[best]:.3f}: {share} of {loss}'s lead is what "
        "that decision rule gives any loss."
    )


def sentence_on_validation(comparison: Mapping[str, Any]) -> str:
    """How the losses stand on the split that chose."""
    name, loss = f"val_{comparison['selection_metric']}", comparison["winner"]["loss"]
    entry = comparison["losses"][loss]
    text = f"Validation chose {loss}: {metric_name(name)} {cell(entry['metrics'][name])}"
    difference = entry["difference"].get(name)
    if difference is not None:
        text += f", {gap(difference)} over {comparison['baseline']}"
    return f"{text}. This split also chose the epochs, so its values flatter."


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


def _verdict(comparison: Mapping[str, Any]) -> str:
    claim = comparison["claim"]
    loss, baseline, difference = claim["loss"], claim["baseline"], claim["difference"]
    test = metric_name(claim["metric"]) + (" (lower is better)" if lower_is_better(claim["metric"]) else "")
    value = comparison["losses"][loss]["metrics"]
    on_test = f"{test} {cell(value.get(claim['metric']))}"
    validation = f"val_{comparison['selection_metric']}"
    lead = comparison["losses"][loss]["difference"].get(validation)
    if claim["verdict"] == "alone":
        return f"Only {loss} was compared: {metric_name(validation)} {cell(value[validation])}."
    if claim["verdict"] == "baseline":
        return _about_baseline(comparison)
    leads = f"{loss} leads on validation ({signed(lead['mean'])} over {baseline})" if lead else f"{loss} leads"
    if difference is None:
        return f"Nothing is claimed: {leads}, and {test} is not defined for both."
    tested = f"{gap(difference)}, {p_text(difference['p'])}"
    return {
        "better": (
            f"Train with {loss}: {on_test}, {gap(difference)} over {baseline} ({p_text(difference['p'])}): "
            "clearly better than the baseline on the test split, as validation said."
        ),
        "worse": (
            f"Test contradicts validation: {loss}, which validation chose, is worse than {baseline} on the test split "
            f"({test}: {tested}). Keep {baseline}."
        ),
        "contradicted": (
            f"Test contradicts validation: {leads} and is behind it on the test split ({test}: {tested}). "
            f"The two are not distinguishable. Keep {baseline}."
        ),
        "not_distinguishable": (
            f"No loss is shown to be better than {baseline}: {leads}, and on the test split the two are not "
            f"distinguishable ({test}: {tested})."
        ),
        "untested": (
            f"Nothing is claimed{_untested(comparison)}: {leads}; on the test split the difference in {test} is "
            f"{gap(difference)}, of which the luck of training is an unknown part."
        ),
    }[claim["verdict"]]


def _untested(comparison: Mapping[str, Any]) -> str:
    losses = comparison["losses"]
    names = (comparison["claim"]["loss"], comparison["claim"]["baseline"])
    return " from one seed" if min(len(losses[name]["seeds"]) for name in names) == 1 else ""


def _about_baseline(comparison: Mapping[str, Any]) -> str:
    """The baseline leads: which is no proof against the others either."""
    baseline, losses = comparison["baseline"], comparison["losses"]
    name = f"val_{comparison['selection_metric']}"
    others = [loss for loss, entry in losses.items() if entry["candidate"] and loss != baseline]
    sign = -1 if lower_is_better(name) else 1
    following = max(others, key=lambda loss: sign * losses[loss]["metrics"][name]["mean"])
    difference = losses[following]["difference"].get(name)
    text = f"Train with {baseline}, the baseline: {metric_name(name)} {cell(losses[baseline]['metrics'][name])}"
    if difference is None:
        return f"{text}; no other loss did better on validation."
    apart = difference["p_holm"] is not None and difference["p_holm"] <= 1 - comparison["inference"]["confidence"]
    doubt = "clearly behind" if apart else "not distinguishable from it"
    return (
        f"{text}. No other loss did better on validation; {following}, the next one, is {doubt} "
        f"({gap(difference)}, {p_text(difference['p_holm'])})."
    )


def _alarmed(comparison: Mapping[str, Any]) -> list[str]:
    """One sentence for each model that counts and raises an alarm: the chosen one, then the baseline."""
    names = dict.fromkeys((comparison["claim"]["loss"], comparison["baseline"]))
    return [f"Alarm: {name} {_speaking(comparison, name)}." for name in names if _speaking(comparison, name)]


def _speaking(comparison: Mapping[str, Any], loss: str) -> str:
    texts = alarm_texts(comparison["losses"][loss]["alarms"])
    rest = f", and {len(texts) - 2} more" if len(texts) > 2 else ""
    return ", ".join(texts[:2]) + rest


def _pairs() -> str:
    return ", ".join(f"{seeds}: {count}" for seeds, count in _REACH.items())


def _seeds(comparison: Mapping[str, Any]) -> str:
    losses, claim = comparison["losses"], comparison["claim"]
    own, other = (len(losses[name]["seeds"]) for name in (claim["loss"], claim["baseline"]))
    return f"{own} seeds a loss" if own == other else f"{own} and {other} seeds"
