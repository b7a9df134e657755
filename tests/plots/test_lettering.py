"""Labels of every script can be read in pictures: in their letters, or in Latin ones."""

from __future__ import annotations

import pytest
from PIL import Image, features

from lshbench.plots import lettering
from lshbench.plots.lettering import lettered
from lshbench.plots.retrieval import Result, Row, retrieval


@pytest.fixture(autouse=True)
def fresh() -> None:
    lettered.cache_clear()
    lettering._font_with.cache_clear()


@pytest.mark.parametrize("text", ["cat", "café", "собака", "γάτα", "caf\\xe9"])
def test_letters_of_the_usual_font_are_drawn_as_they_are(text: str) -> None:
    shown, font = lettered(text, 13, False)
    assert shown == text
    assert font.getname() == ("DejaVu Sans", "Book")


@pytest.mark.parametrize(
    ("text", "latin"), [("猫", "Mao"), ("犬 2", "Quan 2"), ("고양이", "GoYangI"), ("แมว", "aemw"), ("बिल्ली", "billi")]
)
def test_others_are_transcribed_where_no_font_has_them(text: str, latin: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lettering, "_installed_fonts", lambda: iter(()))
    assert lettered(text, 13, True)[0] == latin


def test_an_installed_font_that_has_them_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    usual, serif = lettering._usual_font(False), lettering._usual_font(False).with_name("DejaVuSerif.ttf")
    whole = lettering._letters_of(serif)
    assert "Ж" in whole
    monkeypatch.setattr(lettering, "_letters_of", lambda path: frozenset("abc") if path == usual else whole)
    monkeypatch.setattr(lettering, "_installed_fonts", lambda: iter([usual, serif]))
    shown, font = lettered("Жa", 13, False)
    assert shown == "Жa"
    assert font.getname()[0] == "DejaVu Serif"


def test_what_must_be_laid_out_is_transcribed_where_that_can_t_be_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "check", lambda name: False)
    assert lettered("قط", 13, False)[0].isascii()


def test_labels_of_any_script_are_drawn() -> None:
    image = Image.new("RGB", (8, 8))
    row = Row(image, "猫 \u202e قط", [Result(image, "고양이" * 30, 1.0, True), Result(image, "🙂", 2.0, None)])
    assert retrieval([row], title="猫", ranking="hamming").width > 100
