import pytest

from recsys.errors import InputError
from recsys.live.text import check_entries, check_id, check_text, shown

WRONG = {
    "lone surrogate": (
        "a\ud83d",
        "user_id='a\\ud83d': half of a character (a lone surrogate) at place 2",
    ),
    "second half alone": ("\ude00", "a lone surrogate) at place 1"),
    "NUL": ("a\0b", "user_id='a\\x00b': a NUL character at place 2"),
    "NUL among other letters": ("é\0", "a NUL character at place 2"),
    "empty": ("", "user_id='': has 0 characters; allowed are 1 to 256"),
    "long": ("x" * 257, "has 257 characters; allowed are 1 to 256"),
    "bytes": (b"u1", "user_id=b'u1': must be text"),
    "none": (None, "user_id=None: must be text"),
    "true": (True, "user_id=True: must be text"),
    "float": (1.0, "user_id=1.0: must be text"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_kept_is_refused_in_one_printable_line(case: str) -> None:
    value, message = WRONG[case]
    for check in (check_text, check_id):
        with pytest.raises(InputError) as refused:
            check(value, "user_id")
        text = str(refused.value)
        assert message in text
        assert text.isascii() and "\n" not in text and len(text) < 250


@pytest.mark.parametrize("value", ["u", "x" * 256, "😀", "a b\tc", "名" * 256, "'; DROP TABLE x"])
def test_text_is_kept_as_it_came(value: str) -> None:
    assert check_text(value, "user_id") == value
    assert check_id(value, "user_id") == value


def test_integers_are_ids_and_no_text() -> None:
    assert check_id(-3, "user_id") == "-3"
    assert check_id(2**63, "user_id") == "9223372036854775808"
    with pytest.raises(InputError, match="must be text"):
        check_text(3, "version")
    with pytest.raises(InputError, match="characters; allowed are 1 to 256"):
        check_id(10**300, "user_id")


def test_mappings_have_names_and_an_end() -> None:
    assert check_entries({"tab": 1}, "context") == {"tab": 1}
    for value, message in (
        ([("tab", 1)], "must be a mapping"),
        ({"\ud83d": 1}, "a name in context='\\ud83d': half of a character"),
        ({str(i): 1 for i in range(65)}, "context: has 65 entries; allowed are at most 64"),
    ):
        with pytest.raises(InputError) as refused:
            check_entries(value, "context")
        assert message in str(refused.value)


def test_values_in_messages_are_short() -> None:
    assert shown(10**5000) == "a very large integer"
    assert len(shown(["x" * 1000])) <= 61
