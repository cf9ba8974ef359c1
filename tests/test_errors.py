"""Each error raised on purpose has the exit code that the command line promises."""

from __future__ import annotations

import inspect

import pytest

from raregrade import errors

CLASSES = [c for _, c in inspect.getmembers(errors, inspect.isclass) if c.__module__ == errors.__name__]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.UserError, 2),
        (errors.ConfigError, 2),
        (errors.DataError, 2),
        (errors.ModelError, 2),
        (errors.RegistryError, 2),
        (errors.GateRefusedError, 3),
        (errors.InterruptedRunError, 75),
    ],
)
def test_error_carries_its_exit_code(error: type[errors.RaregradeError], code: int) -> None:
    assert error("message").exit_code == code


@pytest.mark.parametrize("error", CLASSES)
def test_whoever_catches_the_base_catches_every_error(error: type[Exception]) -> None:
    assert issubclass(error, errors.RaregradeError)


def test_wrong_input_is_a_value_error_for_users_of_the_library() -> None:
    assert issubclass(errors.UserError, ValueError)
    assert not issubclass(errors.GateRefusedError, ValueError)
