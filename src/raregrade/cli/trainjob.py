"""``raregrade pipeline trainjob``: one training over several nodes, as a file for kubectl."""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
import yaml

from raregrade.cli.cluster_options import ImageOption, require_kfp, tracking_of_environment
from raregrade.cli.options import LossOption, ParamsOptions
from raregrade.errors import UserError

_NAME_LENGTH = 40  # the cluster appends to it, and a pod's name ends at 63


def trainjob(
    *,
    env: Annotated[
        str, typer.Option("--env", metavar="NAME|FILE", help="The cluster: a file, or a name in configs/environments.")
    ],
    loss: LossOption,
    data: Annotated[str, typer.Option("--data", metavar="PATH", help="The prepared dataset, where the nodes find it.")],
    out: Annotated[
        str, typer.Option("--out", metavar="PATH", help="The model folder to write, on a volume of all nodes.")
    ],
    seed: Annotated[int, typer.Option("--seed", min=0, help="The seed of the training.")] = 1,
    fold: Annotated[
        int | None, typer.Option("--fold", min=0, help="Validate on this fold of cross-validation.")
    ] = None,
    nodes: Annotated[
        int | None, typer.Option("--nodes", min=1, help="Default: distributed.nodes of the environment.")
    ] = None,
    image: ImageOption = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="The file to write. Default: print it.")
    ] = None,
    options: ParamsOptions,
) -> None:
    """Write a training over several nodes for kubectl.

    It is a TrainJob of Kubeflow Trainer.

    Example:
        raregrade pipeline trainjob --env prod --loss cdw_ce \\
            --data /mnt/data/phantom --out /mnt/data/models/cdw_ce -o job.yaml
    """
    require_kfp()
    from raregrade.kubeflow.environments import load_environment
    from raregrade.kubeflow.images import choose_image
    from raregrade.kubeflow.trainjob import PARAMS_FILE, params_config_map, train_job

    environment = load_environment(env)
    config = options.read(defaults=tracking_of_environment(environment))
    if loss not in config.losses:
        raise UserError(f"loss {loss!r} is not defined under losses; defined: {', '.join(config.losses)}")
    for option, folder in (("--data", data), ("--out", out)):
        _check_shared(option, folder, [volume.path for volume in environment.volumes])
    text = yaml.safe_dump(config.to_dict(), sort_keys=False, allow_unicode=True)
    name = _job_name(loss, seed, "\n".join((text, data, out, str(fold))))
    arguments = ["train", "--data", data, "--loss", loss, "--seed", str(seed), "--out", out]
    arguments += ["--params", PARAMS_FILE]
    arguments += ["--fold", str(fold)] if fold is not None else []
    arguments += ["--checkpoints", environment.checkpoints] if environment.checkpoints else []
    job = train_job(
        environment,
        image=choose_image(environment, image),
        nodes=nodes or environment.distributed.nodes,
        name=name,
        arguments=arguments,
        config_map=name,
    )
    documents = [params_config_map(environment, name, text), job]
    written = yaml.dump_all(documents, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    if output is None:
        sys.stdout.write(written)
        return
    from raregrade.atomic import write_text

    write_text(output, written)
    where = f"-n {environment.namespace} " if environment.namespace else ""
    print(f"{output}: {name}, {nodes or environment.distributed.nodes} nodes. Next: `kubectl apply -f {output}`, then")
    print(f"`kubectl {where}logs -f -l jobset.sigs.k8s.io/jobset-name={name} --prefix`")


class _Dumper(yaml.SafeDumper):
    """Writes a text of several lines as one, so that params.yaml can be read within the ConfigMap."""


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Dumper.add_representer(str, _text)


def _check_shared(option: str, folder: str, volumes: list[str]) -> None:
    if not any(Path(folder).is_relative_to(path) for path in volumes):
        raise UserError(
            f"{option} {folder} is on none of the environment's volumes ({', '.join(volumes) or 'there are none'}), "
            "so the nodes would not share it"
        )


def _job_name(loss: str, seed: int, content: str) -> str:
    """Letters, digits and dashes; the same for the same training, so that applying it twice starts it once."""
    base = re.sub(r"[^a-z0-9]+", "-", f"train-{loss}-{seed}".lower())[: _NAME_LENGTH - 9].strip("-")
    return f"{base}-{hashlib.sha256(content.encode()).hexdigest()[:8]}"


COMMANDS: dict[str, Callable[..., None]] = {"trainjob": trainjob}
