"""The tab “Distill” in the sidebars of the 3D View, the Image Editor and the Shader Editor, one module a section."""

from . import inputs, layout, parameters, results, run, service

classes = (
    *run.classes,
    *inputs.classes,
    *layout.classes,
    *parameters.classes,
    *results.classes,
    *service.classes,
)
