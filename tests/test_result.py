from __future__ import annotations

import copy
import dataclasses
import pickle

import pytest

from aragora_transport import ConnectorResult

FIELDS = (
    "success",
    "data",
    "error",
    "error_code",
    "retryable",
    "status_code",
    "retry_after",
    "attempts",
    "correlation_id",
)


def test_success_is_the_constructor_on_the_class_and_the_bool_on_a_result():
    result = ConnectorResult.success({"id": 7})
    assert result.success is True
    assert result.data == {"id": 7}
    assert (result.error, result.error_code, result.retryable) == (None, None, False)


def test_a_failure_says_what_for_people_and_for_programs():
    result = ConnectorResult.failure("no such channel", code="channel_not_found", retryable=True)
    assert result.success is False
    assert (result.error, result.error_code, result.retryable) == (
        "no such channel",
        "channel_not_found",
        True,
    )
    assert result.data is None


def test_the_guides_own_call_works():
    assert ConnectorResult.failure("Service temporarily unavailable").error_code is None
    assert ConnectorResult(success=True, data={"a": 1}) == ConnectorResult.success({"a": 1})
    assert ConnectorResult(success=False).retryable is False
    assert ConnectorResult.failure("x").retryable is False
    by_position = ConnectorResult(False, None, "busy", "503", True)
    assert by_position == ConnectorResult.failure("busy", code="503", retryable=True)


def test_a_success_without_data_is_one():
    assert ConnectorResult.success().data is None
    assert ConnectorResult.success().success is True


@pytest.mark.parametrize(
    "make",
    [
        ConnectorResult,
        lambda: ConnectorResult(data={}),
        ConnectorResult.failure,
        lambda: ConnectorResult.success({}, code="x"),
        lambda: ConnectorResult.failure("x", error_code="y"),
    ],
    ids=["nothing", "data alone", "no error", "a success with a code", "the field's name"],
)
def test_what_leaves_the_outcome_open_or_is_misspelled_is_refused(make):
    with pytest.raises(TypeError, match="argument"):
        make()


def test_the_fields_are_the_guides_and_then_ours():
    assert tuple(field.name for field in dataclasses.fields(ConnectorResult)) == FIELDS


@pytest.mark.parametrize("make", [ConnectorResult.success, ConnectorResult.failure])
def test_both_constructors_take_what_the_call_left(make):
    details = {"status_code": 429, "retry_after": 2.5, "attempts": 3, "correlation_id": "abc"}
    result = make("data or error", **details)
    assert {name: getattr(result, name) for name in details} == details


def test_a_result_is_frozen():
    result = ConnectorResult.success(1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.success = False
    with pytest.raises(dataclasses.FrozenInstanceError):
        del result.data


def test_a_result_behaves_like_the_dataclass_that_it_is():
    failed = ConnectorResult.failure("busy", code="503", retryable=True, status_code=503)
    assert dataclasses.asdict(failed) == dict(
        zip(FIELDS, (False, None, "busy", "503", True, 503, None, None, None), strict=True)
    )
    assert dataclasses.replace(failed, attempts=2).attempts == 2
    assert dataclasses.replace(failed, attempts=2).success is False
    assert repr(failed).startswith("ConnectorResult(success=False, data=None, error='busy'")
    assert failed != dataclasses.replace(failed, success=True)
    assert hash(failed) == hash(copy.copy(failed))


@pytest.mark.parametrize("result", [ConnectorResult.success([1]), ConnectorResult.failure("x", "y")])
def test_a_result_survives_copying_and_pickling(result):
    assert copy.deepcopy(result) == result
    again = pickle.loads(pickle.dumps(result))  # noqa: S301  # our own bytes
    assert (again, again.success) == (result, result.success)


def test_a_subclass_makes_its_own_kind():
    class Sent(ConnectorResult):
        pass

    assert type(Sent.success()) is Sent
    assert type(Sent.failure("x")) is Sent
    assert Sent.success().success is True


def test_matching_a_result_by_its_fields():
    match ConnectorResult.failure("busy", retryable=True):
        case ConnectorResult(success=False, retryable=True, error=error):
            assert error == "busy"
        case _:
            pytest.fail("a failure is no success")
