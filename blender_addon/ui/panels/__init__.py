"""The tab “Distill” in the sidebars of the 3D View, the Image Editor and the Shader Editor, one module a section."""

from . import edits, inputs, layout, mapping, maps, parameters, presets, results, run, service

classes = (
    *run.classes,
    *inputs.classes,
    *maps.classes,
    *layout.classes,
    *presets.classes,
    *parameters.classes,
    *results.classes,
    *edits.classes,
    *mapping.classes,
    *maps.surface_classes,
    *service.classes,
)
