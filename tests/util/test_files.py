import io
import json

import pytest

from util.files import JsonWriter


@pytest.mark.parametrize("items", [[], [{"name": "a\"b"}], [{"n": 1}, None, [2.5, "ü"]]])
def test_a_list_written_item_by_item_is_the_same_json(items):
    file = io.StringIO()
    writer = JsonWriter(file)
    writer.add("first", {"x": [1, None]})
    writer.begin_list("items")
    for item in items:
        writer.append(item)
    writer.end_list()
    writer.add("complete", True)
    writer.close()
    assert json.loads(file.getvalue()) == {"first": {"x": [1, None]}, "items": items, "complete": True}


def test_an_object_may_begin_with_a_list_or_hold_nothing():
    file = io.StringIO()
    writer = JsonWriter(file)
    writer.begin_list("items")
    writer.end_list()
    writer.close()
    assert json.loads(file.getvalue()) == {"items": []}
    file = io.StringIO()
    JsonWriter(file).close()
    assert json.loads(file.getvalue()) == {}
