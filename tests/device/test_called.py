"""docs/evidence/operators.md has all that a method calls of a device."""

from parity.stand_in import called


def test_the_page_has_what_a_step_calls(ascend_worker):
    """Of an Ascend; test_stand_in_training.py asks the same of a GPU."""
    used = ascend_worker.do("called_by", "AGW")
    assert len(used) > 40
    assert called.unknown(used, called.PAGE.read_text("utf-8")) == []


def test_what_the_page_does_not_have_is_named():
    page = called.page(
        {"Ascend": {"aclnnAdd(float32, float32)": ["PMT"], "by name: AddN(float32) -> (float32)": ["MUN"]}}
    )
    assert "| aclnnAdd | `(float32, float32)` | PMT |" in page
    assert "at their first use (1)\n" in page
    asked = [
        "aclnnAdd(float32, float32)",
        "by name: AddN(float32) -> (float32)",
        "aclnnAdd(int32, int32)",
        "aclnnNew()",
    ]
    assert called.unknown(asked, page) == asked[2:]
