"""Translations: complete, without texts that are no longer used, with the same placeholders, and shown by Blender."""

from __future__ import annotations

import re
from typing import Any

import pytest

from blender_addon import translations
from tests.addon.ui_texts import ui_texts

each_language = pytest.mark.parametrize("language", translations.LANGUAGES)


@each_language
def test_every_text_of_the_interface_is_translated(blender: Any, language: str) -> None:
    assert sorted(ui_texts() - set(translations.LANGUAGES[language])) == []


@each_language
def test_no_translation_is_left_over(blender: Any, language: str) -> None:
    assert sorted(set(translations.LANGUAGES[language]) - ui_texts()) == []


@each_language
def test_a_translation_has_the_placeholders_of_its_original(language: str) -> None:
    for text, translated in translations.LANGUAGES[language].items():
        assert translated.strip(), text
        assert re.findall(r"{[^}]*}", text) == re.findall(r"{[^}]*}", translated), text


@each_language
def test_a_translation_ends_as_its_original(language: str) -> None:
    """Blender adds a period to tooltips, so none has one."""
    for text, translated in translations.LANGUAGES[language].items():
        assert translated.endswith((".", "。")) == text.endswith("."), text


def test_a_text_is_shown_in_the_language_of_the_interface(blender: Any) -> None:
    view = blender.context.preferences.view
    if "de_DE" not in blender.app.translations.locales:
        pytest.skip("this Blender has no translations")
    view.language = "de_DE"
    try:
        view.use_translate_interface = True
        shown = blender.app.translations.pgettext_iface("Apply Results Automatically")
        assert shown == translations.LANGUAGES["de_DE"]["Apply Results Automatically"]
    finally:
        view.language = "en_US"
