"""Every parameter that params.yaml can hold reaches its place in the formula, whichever the loss.

Each loss is built as a training builds it, from the text of its settings, and compared with a formula written out here
in plain numpy. The settings of a loss all differ, and changing any one of them changes the formula, so that a
parameter that is lost, or taken for another, is seen.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn

from raregrade.config import params_from_dict, section
from raregrade.labels import label_statistics
from raregrade.losses import LOSSES, create_loss
from raregrade.losses.base import Loss
from raregrade.losses.definition import HeadSpec, Stage

Array = npt.NDArray[np.float64]
Settings = dict[str, Any]
Seen = dict[str, Any]

GRADES = ["none", "mild", "moderate", "severe"]
FINDINGS = ["opacity", "fluid", "edema", "effusion"]
EDGES = [["opacity", "fluid"], ["opacity", "edema"], ["fluid", "effusion"]]
EPOCH, EPOCHS = 5, 10

COUNTS = np.array([60.0, 25.0, 10.0, 5.0])
TRAINING_GRADES = np.repeat(np.arange(4), COUNTS.astype(int))
_RNG = np.random.default_rng(11)
TRAINING_FINDINGS = np.where(
    _RNG.random((90, 4)) < 0.1, np.nan, (_RNG.random((90, 4)) < [0.6, 0.3, 0.2, 0.05]).astype(float)
)
Y = np.array([0, 1, 2, 3, 3, 1, 0, 2])
Z = 1.5 * _RNG.standard_normal((8, 4))
FEATURES = _RNG.standard_normal((8, 5))
LABELS = np.array([[1, 1, 0, 0], [0, 1, 0, 1], [1, 0, 1, 0], [0, 0, 1, 1], [1, 1, 1, 0], [0, 1, 0, 0]], dtype=float)
LABEL_Z = 1.5 * _RNG.standard_normal((6, 4))


def log_softmax(z: Array) -> Array:
    return z - np.log(np.exp(z).sum(axis=1, keepdims=True))


def cross_entropy(z: Array, weights: Array | None = None) -> float:
    each = -log_softmax(z)[np.arange(len(Y)), Y]
    return float(each.mean() if weights is None else (weights[Y] * each).sum() / weights[Y].sum())


def inverse_weights() -> Array:
    return COUNTS.sum() / (len(COUNTS) * COUNTS)


def effective_weights(beta: float) -> Array:
    weights = (1 - beta) / (1 - beta**COUNTS)
    return weights / weights.sum() * len(COUNTS)


def margins(max_margin: float) -> Array:
    return max_margin * (COUNTS / COUNTS.min()) ** -0.25


def with_margins(max_margin: float, scale: float, head: str) -> Array:
    """The logits of LDAM: a cosine head has multiplied by the scale already."""
    z = Z if head == "cosine" else scale * Z
    return z - scale * margins(max_margin) * np.eye(4)[Y]


def head_of(head: str, scale: float) -> HeadSpec:
    return HeadSpec("cosine", scale) if head == "cosine" else HeadSpec()


def focal_terms(gamma: float) -> Array:
    log_p = log_softmax(Z)[np.arange(len(Y)), Y]
    return -((1 - np.exp(log_p)) ** gamma) * log_p


def weighted_ce(weighting: str) -> Seen:
    complement = (1 - COUNTS / COUNTS.sum()) / (len(COUNTS) - 1)
    return {"value": cross_entropy(Z, inverse_weights() if weighting == "inverse" else complement)}


def effective_number(beta: float) -> Seen:
    return {"value": cross_entropy(Z, effective_weights(beta))}


def balanced_softmax(tau: float) -> Seen:
    return {"value": cross_entropy(Z + tau * np.log(COUNTS / COUNTS.sum()))}


def focal(gamma: float, weighting: str) -> Seen:
    weights = inverse_weights()[Y] if weighting == "inverse" else 1.0
    return {"value": float((weights * focal_terms(gamma)).mean())}


def ldam(max_margin: float, scale: float, head: str) -> Seen:
    return {"value": cross_entropy(with_margins(max_margin, scale, head)), "head": head_of(head, scale)}


def drw(max_margin: float, scale: float, head: str, beta: float, start: float) -> Seen:
    weights = effective_weights(beta) if start * EPOCHS <= EPOCH else np.ones(4)
    return {"value": cross_entropy(with_margins(max_margin, scale, head), weights), "head": head_of(head, scale)}


def lmf(*, max_margin: float, scale: float, head: str, alpha: float, beta: float, gamma: float, weighting: str) -> Seen:
    weights = margins(max_margin) if weighting == "margin" else np.ones(4)
    margin_term = cross_entropy(with_margins(max_margin, scale, head), weights)
    focal_term = float((weights[Y] * focal_terms(gamma)).mean())
    return {"value": alpha * margin_term + beta * focal_term, "head": head_of(head, scale)}


def cdw_ce(power: float, margin: float, margin_form: str) -> Seen:
    p = np.exp(log_softmax(Z))
    distance = np.abs(np.arange(4)[None, :] - Y[:, None]) ** power
    miss = np.minimum(1 - p + margin, 1) if margin_form == "dead_zone" else 1 - np.minimum(p + margin, 1 - 1e-7)
    return {"value": float(-(distance * np.log(miss)).sum(axis=1).mean())}


def coral() -> Seen:
    above = np.arange(3)[None, :] < Y[:, None]
    z = Z[:, :3]
    return {"value": float(np.log1p(np.exp(np.where(above, -z, z))).sum(axis=1).mean()), "head": HeadSpec("coral")}


def corn() -> Seen:
    terms = [
        np.log1p(np.exp(-Z[b, k] if y > k else Z[b, k])) for b, y in enumerate(Y) for k in range(3) if y >= k
    ]  # fmt: skip
    return {"value": float(np.mean(terms))}


def dlordinal(loss: str, eta: float, alpha: float) -> Seen:
    from dlordinal import losses

    made = {
        "beta": lambda: losses.BetaLoss(nn.CrossEntropyLoss(), 4, eta=eta),
        "triangular": lambda: losses.TriangularLoss(nn.CrossEntropyLoss(), 4, eta=eta),
        "slace": lambda: losses.SLACELoss(alpha, 4),
        "sord": lambda: losses.SORDLoss(alpha, 4, train_targets=torch.arange(4)),
    }[loss]()
    return {"value": float(made(torch.from_numpy(Z), torch.from_numpy(Y)))}


def metric_term(metric: str, margin: float, temperature: float) -> float:
    unit = FEATURES / np.linalg.norm(FEATURES, axis=1, keepdims=True)
    if metric == "class_center":
        centres = np.stack([unit[c == Y].mean(axis=0) for c in range(4)])
        distance = np.linalg.norm(unit[:, None, :] - centres[None, :, :], axis=2)
        own = distance[np.arange(8), Y]
        nearest = np.where(np.eye(4)[Y] == 1, np.inf, distance).min(axis=1)
        return float(np.maximum(margin + own - nearest, 0).mean())
    similarity = unit @ unit.T / temperature  # supervised contrastive loss
    others = ~np.eye(8, dtype=bool)
    log_share = similarity - np.log((np.exp(similarity) * others).sum(axis=1, keepdims=True))
    same = (Y[:, None] == Y[None, :]) & others
    return float(-((log_share * same).sum(axis=1) / same.sum(axis=1)).mean())


def two_stage(
    *,
    metric: str,
    metric_weight: float,
    margin: float,
    temperature: float,
    images_per_class: int,
    classifier: str,
    tau: float,
    classifier_share: float,
) -> Seen:
    prior = np.log(COUNTS / COUNTS.sum()) if classifier == "balanced_softmax" else 0.0
    share = 0.0 if classifier == "tau_norm" else classifier_share
    sampler, head = {
        "crt": ("class_balanced", "new"),
        "balanced_softmax": ("shuffle", "new"),
        "lws": ("class_balanced", "scale"),
        "tau_norm": ("shuffle", "tau_normalise"),
    }[classifier]
    return {
        "value": cross_entropy(Z) + metric_weight * metric_term(metric, margin, temperature),
        "value of stage 2": cross_entropy(Z + prior),
        "stages": (
            Stage("representation", share=1 - share, sampler="pk", images_per_class=images_per_class),
            Stage("classifier", share, sampler, freeze_backbone=True, head=head, tau=tau),  # type: ignore[arg-type]
        ),
    }


def binary(weights: Array | float = 1.0, positive_power: float = 0.0, negative_power: float = 0.0) -> float:
    p = 1 / (1 + np.exp(-LABEL_Z))
    positive = -weights * (1 - p) ** positive_power * np.log(p)
    negative = -(p**negative_power) * np.log(1 - p)
    return float((LABELS * positive + (1 - LABELS) * negative).mean())


def weighted_bce(max_weight: float) -> Seen:
    ratio = np.nansum(TRAINING_FINDINGS == 0, axis=0) / np.nansum(TRAINING_FINDINGS == 1, axis=0)
    return {"value": binary(np.clip(ratio, 1 / max_weight, max_weight))}


def focal_bce(gamma: float) -> Seen:
    return {"value": binary(1.0, gamma, gamma)}


def asymmetric_bce(gamma_negative: float, gamma_positive: float, clip: float) -> Seen:
    p = 1 / (1 + np.exp(-LABEL_Z))
    q = np.maximum(p - clip, 0)
    positive = -((1 - p) ** gamma_positive) * np.log(p)
    negative = -(q**gamma_negative) * np.log(1 - q)
    return {"value": float((LABELS * positive + (1 - LABELS) * negative).mean())}


def hbce(penalty: Any, mode: str, scale: float) -> Seen:
    p = 1 / (1 + np.exp(-LABEL_Z))
    value = binary()
    for parent, child in EDGES:
        u, v = FINDINGS.index(parent), FINDINGS.index(child)
        if penalty == "data_driven":
            absent = TRAINING_FINDINGS[:, u] == 0
            known = absent & ~np.isnan(TRAINING_FINDINGS[:, v])
            broken = absent & (TRAINING_FINDINGS[:, v] == 1)
            weight = scale * (1 - (broken.sum() + 1e-6) / (known.sum() + 2e-6))
        else:
            weight = penalty[parent][child] if isinstance(penalty, dict) else penalty
        excess = (p[:, u] < 0.5) & (p[:, v] > 0.5) if mode == "hard" else np.maximum(p[:, v] - p[:, u], 0)
        value += weight * excess.mean()
    return {"value": value}


NESTED = {"opacity": {"fluid": 0.4, "edema": 0.9}, "fluid": {"effusion": 1.7}}
SUPCON = {"metric": "supcon", "margin": 0.9}

# kind, formula, settings that all differ, and another value of each that counts under them.
CASES: list[tuple[str, Callable[..., Seen], Settings, Settings]] = [
    ("ce", lambda: {"value": cross_entropy(Z)}, {}, {}),
    ("weighted_ce", weighted_ce, {"weighting": "inverse"}, {"weighting": "complement"}),
    ("effective_number", effective_number, {"beta": 0.99}, {"beta": 0.9}),
    ("balanced_softmax", balanced_softmax, {"tau": 0.6}, {"tau": 1.7}),
    ("focal", focal, {"gamma": 2.3, "weighting": "none"}, {"gamma": 0.7, "weighting": "inverse"}),
    (
        "ldam",
        ldam,
        {"max_margin": 0.35, "scale": 3.0, "head": "linear"},
        {"max_margin": 0.8, "scale": 1.5, "head": "cosine"},
    ),
    (
        "drw",
        drw,
        {"max_margin": 0.35, "scale": 3.0, "head": "linear", "beta": 0.97, "start": 0.4},
        {"max_margin": 0.8, "scale": 1.5, "head": "cosine", "beta": 0.8, "start": 0.7},
    ),
    (
        "lmf",
        lmf,
        {
            "max_margin": 0.35, "scale": 3.0, "head": "linear",
            "alpha": 0.7, "beta": 1.9, "gamma": 2.3, "weighting": "none",
        },
        {
            "max_margin": 0.8, "scale": 1.5, "head": "cosine",
            "alpha": 1.2, "beta": 0.9, "gamma": 0.6, "weighting": "margin",
        },
    ),
    (
        "cdw_ce",
        cdw_ce,
        {"power": 3.0, "margin": 0.05, "margin_form": "dead_zone"},
        {"power": 1.5, "margin": 0.2, "margin_form": "tighten"},
    ),
    ("coral", coral, {}, {}),
    ("corn", corn, {}, {}),
    ("dlordinal", dlordinal, {"loss": "beta", "eta": 0.4, "alpha": 2.0}, {"loss": "triangular", "eta": 0.9}),
    ("dlordinal", dlordinal, {"loss": "sord", "eta": 0.4, "alpha": 2.0}, {"loss": "slace", "alpha": 0.5}),
    (
        "two_stage",
        two_stage,
        {
            "metric": "class_center", "metric_weight": 0.7, "margin": 0.9, "temperature": 0.3, "images_per_class": 5,
            "classifier": "crt", "tau": 0.6, "classifier_share": 0.4,
        },
        {
            "metric": "supcon", "metric_weight": 1.6, "margin": 1.4, "images_per_class": 3,
            "classifier": "balanced_softmax", "tau": 1.5, "classifier_share": 0.2,
        },
    ),
    (
        "two_stage",
        two_stage,
        {
            "metric": "supcon", "metric_weight": 0.7, "margin": 0.9, "temperature": 0.3, "images_per_class": 5,
            "classifier": "lws", "tau": 0.6, "classifier_share": 0.4,
        },
        {"temperature": 0.8, "classifier": "tau_norm"},
    ),
    ("bce", lambda: {"value": binary()}, {}, {}),
    ("weighted_bce", weighted_bce, {"max_weight": 5.0}, {"max_weight": 2.0}),
    ("focal_bce", focal_bce, {"gamma": 2.3}, {"gamma": 0.7}),
    (
        "asymmetric_bce",
        asymmetric_bce,
        {"gamma_negative": 3.1, "gamma_positive": 1.3, "clip": 0.08},
        {"gamma_negative": 1.7, "gamma_positive": 0.4, "clip": 0.2},
    ),
    ("hbce", hbce, {"penalty": 0.7, "mode": "hard", "scale": 2.0}, {"penalty": 1.9, "mode": "soft"}),
    (
        "hbce",
        hbce,
        {"penalty": "data_driven", "mode": "soft", "scale": 2.0},
        {"penalty": NESTED, "mode": "hard", "scale": 0.5},
    ),
]  # fmt: skip
IDS = [f"{kind} {index}" for index, (kind, *_) in enumerate(CASES)]


def build(kind: str, settings: Settings) -> Loss:
    """As ``raregrade train`` builds it from params.yaml."""
    labelled = LOSSES[kind].tasks == ("multilabel",)
    data = {"task": "multilabel", "classes": FINDINGS, "hierarchy": EDGES} if labelled else {"task": "ordinal"}
    params = params_from_dict(
        {
            "data": {"source": "folder", "path": "images", "classes": GRADES} | data,
            "losses": {"mine": {"kind": kind, **settings}},
            "compare": {"losses": ["mine"], "seeds": [1], "baseline": "mine"},
        }
    )
    loss = section(params, "train", "mine").loss
    space = params.data.label_space()
    statistics = label_statistics(TRAINING_FINDINGS if labelled else TRAINING_GRADES, space)
    return create_loss(
        loss.kind,
        label_space=space,
        class_counts=statistics.class_counts,
        statistics=statistics,
        **loss.params.model_dump(),
    )


def seen_of(loss: Loss) -> Seen:
    """The same of a built loss as the formulas give."""
    loss.set_epoch(EPOCH, EPOCHS)
    if loss.output == "sigmoid":
        return {"value": float(loss(torch.from_numpy(LABEL_Z), torch.from_numpy(LABELS)))}
    inputs = [torch.from_numpy(Z[:, : loss.num_outputs]), torch.from_numpy(Y)]
    features = [torch.from_numpy(FEATURES)] if loss.needs_features else []
    seen = {"value": float(loss(*inputs, *features)), "head": loss.head}
    if len(loss.stages) > 1:
        loss.set_stage(1)
        seen |= {"value of stage 2": float(loss(*inputs)), "stages": loss.stages}
    return seen


def assert_equal(seen: Seen, expected: Seen) -> None:
    expected = {"head": HeadSpec()} | expected if "head" in seen else expected
    assert seen.keys() == expected.keys()
    for name, value in expected.items():
        wanted = pytest.approx(value, rel=1e-6) if isinstance(value, float) else value
        assert seen[name] == wanted, name


@pytest.mark.parametrize(("kind", "formula", "settings", "others"), CASES, ids=IDS)
def test_a_loss_built_from_its_settings_has_the_value_of_its_formula(
    kind: str, formula: Callable[..., Seen], settings: Settings, others: Settings
) -> None:
    assert_equal(seen_of(build(kind, settings)), formula(**settings))


@pytest.mark.parametrize(
    ("kind", "formula", "settings", "name", "other"),
    [(k, f, s, name, other) for k, f, s, others in CASES for name, other in others.items()],
    ids=[f"{i}-{name}" for i, case in zip(IDS, CASES, strict=True) for name in case[3]],
)
def test_each_parameter_changes_the_loss_like_its_formula(
    kind: str, formula: Callable[..., Seen], settings: Settings, name: str, other: Any
) -> None:
    changed = settings | {name: other}
    before, after = formula(**settings), formula(**changed)
    different = [key for key in after if not same(before[key], after[key])]
    assert different, f"the inputs of this test don't show {name}"
    assert_equal(seen_of(build(kind, changed)), after)


def same(a: Any, b: Any) -> bool:
    return abs(a - b) < 1e-3 if isinstance(a, float) else a == b


def test_every_parameter_of_every_loss_is_varied() -> None:
    varied: dict[str, set[str]] = {kind: set() for kind in LOSSES}
    for kind, _, settings, others in CASES:
        assert settings.keys() >= others.keys()
        varied[kind] |= others.keys()
    assert varied == {kind: set(params.model_fields) for kind, params in LOSSES.items()}


def test_no_two_numbers_of_a_loss_are_alike_here() -> None:
    """Otherwise one could be taken for the other without a trace."""
    for kind, _, settings, _ in CASES:
        numbers = [value for value in settings.values() if isinstance(value, int | float)]
        assert len(set(numbers)) == len(numbers), kind
