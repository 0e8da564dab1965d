"""The page holds everything and asks the network for nothing."""

import re

from kits_ml.page import Picture, Table, Text, render


def _page(**changes) -> str:
    options = {
        "title": "Title",
        "subtitle": "of what",
        "verdict": "a < b & c",
        "sentences": ["first", "second"],
        "caveats": ["but"],
        "parts": [
            Table(title="Numbers", header=["name", "value"], rows=[["<script>", "1"]], note="a note"),
            Picture(title="Picture", image=b"<svg xmlns='http://www.w3.org/2000/svg'/>", caption="what", alt="text"),
        ],
        "settings": Table(title="", header=["setting", "value"], rows=[["seed", "0"]]),
    }
    return render(**(options | changes))


def test_text_is_escaped():
    found = _page()
    assert "a &lt; b &amp; c" in found
    assert "<td>&lt;script&gt;</td><td>1</td>" in found
    assert "<script" not in found


def test_nothing_is_fetched():
    found = _page()
    assert not re.search(r"(?:src|href)=\"(?!data:)", found)
    assert "http" not in found.replace("http-equiv", "")
    assert "data:image/svg+xml;base64," in found


def test_no_caveats_no_box():
    assert "To know beside it" in _page()
    assert "To know beside it" not in _page(caveats=[])


def test_words_stand_where_they_are_put():
    parts = [
        Text(title="First", paragraphs=["one", "a < b"], points=["point"]),
        Table(title="", header=["name"], rows=[["value"]]),
        Text(title="", paragraphs=["two"]),
    ]
    found = _page(parts=parts, sentences=[])
    assert "<h2>First</h2>\n<p>one</p>\n<p>a &lt; b</p>\n<ul><li>point</li></ul>" in found
    assert found.count("<h2>") == 1
    assert found.index("<p>one</p>") < found.index("<td>value</td>") < found.index("<p>two</p>")
    assert "<ul></ul>" not in found


def test_what_is_folded_away_has_a_name():
    assert "<summary>Settings</summary>" in _page()
    named = _page(settings=Table(title="Machine", header=["a"], rows=[["b"]]))
    assert "<summary>Machine</summary>" in named


def test_a_table_of_words_wraps():
    words = Table(title="", header=["a", "b"], rows=[["left", "a long sentence"]], of_words=True)
    assert '<table class="words">' in _page(parts=[words])
    assert "<table class" not in _page()
