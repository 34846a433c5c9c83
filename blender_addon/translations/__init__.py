"""Texts of the interface in other languages; English is in the code.

Blender translates labels and tooltips by itself. A test compares these files with the interface, so that none of its
texts is missing and none is left over. Errors stay English, as those of the service are.
"""

from . import de_DE, zh_HANS

LANGUAGES = {"de_DE": de_DE.TEXTS, "zh_HANS": zh_HANS.TEXTS}
OWN_CONTEXT = "Texture Distiller"
"""The context of words that mean something else in Blender, whose own translation would be shown first."""
CONTEXTS = ("*", "Operator", OWN_CONTEXT)
"""The contexts in which a text is looked up: that of most texts, that of labels of operators, and our own."""


def tables() -> dict[str, dict[tuple[str, str], str]]:
    """The translations as `bpy.app.translations.register` takes them."""
    return {
        language: {(context, text): translated for text, translated in texts.items() for context in CONTEXTS}
        for language, texts in LANGUAGES.items()
    }
