"""The tab “Distill” in the sidebars of the 3D View, the Image Editor and the Shader Editor, one module a section."""

from . import inputs, layout, mapping, parameters, presets, results, run, service

classes = (
    *run.classes,
    *inputs.classes,
    *layout.classes,
    *presets.classes,
    *parameters.classes,
    *results.classes,
    *mapping.classes,
    *service.classes,
)
