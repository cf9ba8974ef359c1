"""Recurring runs: a pipeline that starts at set times.

A schedule has the name of its pipeline unless another is given, and replaces the one of that name. A run that was
missed is not made up for, and none starts before the one before it has ended.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kfp_server_api

from raregrade.errors import UserError
from raregrade.kubeflow.host import Api, Host, connect, is_multi_user, refusals
from raregrade.kubeflow.submit import experiment_id, pipeline_spec

_PAGE = 100
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 24 * 3600, "w": 7 * 24 * 3600}
_FIELD = re.compile(r"^[0-9A-Za-z*/,?#-]+$")
_DESCRIPTORS = ("@hourly", "@daily", "@weekly", "@monthly", "@yearly")


@dataclass(frozen=True)
class Schedule:
    """A recurring run on a host: its id, name, when it runs, and whether it does."""

    schedule_id: str
    name: str
    when: str
    enabled: bool
    page: str


def read_cron(text: str) -> str:
    """``text`` as Kubeflow reads it: six fields, seconds first.

    Five fields are taken as everywhere else, minutes first. Kubeflow would read them one field further left, and
    `0 3 * * *` would run every hour, at three minutes past.

    Raises:
        UserError: neither five fields nor six, or a sign that no field has.
    """
    if text.strip() in _DESCRIPTORS:
        return text.strip()
    fields = text.split()
    if len(fields) not in (5, 6) or not all(_FIELD.match(field) for field in fields):
        raise UserError(
            f"--cron {text!r}: expected `minute hour day month weekday`, such as '0 3 * * *' for every night at three, "
            f"the same with seconds before it, or one of {', '.join(_DESCRIPTORS)}"
        )
    return " ".join(["0", *fields] if len(fields) == 5 else fields)


def read_interval(text: str) -> int:
    """``90m``, ``6h``, ``1d``, ``2w`` or a number of seconds, in seconds. Raises UserError for all else."""
    found = re.fullmatch(r"([0-9]{1,9})([smhdw]?)", text.strip())
    seconds = int(found[1]) * _UNITS[found[2]] if found else 0
    if seconds < 60:
        raise UserError(f"--interval {text!r}: expected at least a minute, such as 90m, 6h, 1d or 2w")
    return seconds


def set_schedule(
    host: Host,
    package: Path,
    arguments: dict[str, Any],
    *,
    name: str,
    experiment: str,
    cron: str | None = None,
    interval_seconds: int | None = None,
    enabled: bool = True,
    cache: bool = False,
    service_account: str | None = None,
) -> tuple[Schedule, int]:
    """Create the schedule ``name`` in place of those that have the name; returns it and how many it replaced.

    Args:
        host: where to.
        package: compiled YAML.
        arguments: of the pipeline, the same for each run.
        name: of the schedule.
        experiment: the Kubeflow experiment that holds the runs.
        cron: as ``read_cron`` returns it; or
        interval_seconds: from one start to the next.
        enabled: False leaves it standing still until it is enabled.
        cache: True lets a run take over what an earlier one finished with the same arguments.
        service_account: the Kubernetes account that the tasks act as.

    Raises:
        UserError, RaregradeError: as ``raregrade.kubeflow.submit.submit``.
    """
    api = connect(host)
    experiment_of_runs = experiment_id(host, api, experiment)
    replaced = [schedule for schedule in _all(host, api) if schedule.name == name]
    trigger = kfp_server_api.V2beta1Trigger(
        cron_schedule=kfp_server_api.V2beta1CronSchedule(cron=cron) if cron else None,
        periodic_schedule=None if cron else kfp_server_api.V2beta1PeriodicSchedule(interval_second=interval_seconds),
    )
    body = kfp_server_api.V2beta1RecurringRun(
        experiment_id=experiment_of_runs,
        display_name=name,
        pipeline_spec=pipeline_spec(package, cache=cache),
        runtime_config=kfp_server_api.V2beta1RuntimeConfig(parameters=arguments),
        trigger=trigger,
        mode="ENABLE" if enabled else "DISABLE",
        no_catchup=True,
        max_concurrency=1,
        service_account=service_account,
    )
    with refusals(host):
        created = api.schedules.recurring_run_service_create_recurring_run(recurring_run=body)
    # Only now: a schedule that could not be created leaves the one before it in place.
    for schedule in replaced:
        with refusals(host):
            api.schedules.recurring_run_service_delete_recurring_run(schedule.schedule_id)
    return _schedule(host, created), len(replaced)


def list_schedules(host: Host) -> list[Schedule]:
    """All schedules in the namespace. Raises as ``set_schedule``."""
    return list(_all(host, connect(host)))


def change_schedule(host: Host, name: str, action: str) -> int:
    """``enable``, ``disable`` or ``delete`` every schedule called ``name``; returns how many there were.

    Raises:
        UserError: there is none of that name; or as ``set_schedule``.
    """
    api = connect(host)
    schedules = list(_all(host, api))
    named = [schedule for schedule in schedules if schedule.name == name]
    if not named:
        there = ", ".join(sorted({schedule.name for schedule in schedules})) or "none"
        raise UserError(f"no schedule is called {name!r}; there is {there}")
    call = getattr(api.schedules, f"recurring_run_service_{action}_recurring_run")
    for schedule in named:
        with refusals(host):
            call(schedule.schedule_id)
    return len(named)


def _all(host: Host, api: Api) -> Iterator[Schedule]:
    options: dict[str, Any] = {"page_size": _PAGE}
    if is_multi_user(host, api):
        options["namespace"] = host.namespace
    while True:
        with refusals(host):
            answer = api.schedules.recurring_run_service_list_recurring_runs(**options)
        for recurring in answer.recurring_runs or ():
            yield _schedule(host, recurring)
        if not answer.next_page_token:
            return
        options["page_token"] = answer.next_page_token


def _schedule(host: Host, recurring: Any) -> Schedule:
    trigger = recurring.trigger
    if trigger is not None and trigger.cron_schedule is not None and trigger.cron_schedule.cron:
        when = f"cron {trigger.cron_schedule.cron}"
    elif trigger is not None and trigger.periodic_schedule is not None:
        when = f"every {int(trigger.periodic_schedule.interval_second)} s"
    else:
        when = "never"
    state = recurring.status or recurring.mode or ""
    return Schedule(
        recurring.recurring_run_id,
        recurring.display_name,
        when,
        str(state).upper().startswith("ENABLE"),
        host.page(f"recurringrun/details/{recurring.recurring_run_id}"),
    )
