"""The tab “Distill” in the sidebars of the 3D View and the Image Editor, one module for each section."""

from . import inputs, layout, parameters, results, run, service

classes = (
    *service.classes,
    *inputs.classes,
    *layout.classes,
    *parameters.classes,
    *run.classes,
    *results.classes,
)
