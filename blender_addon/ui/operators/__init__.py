"""The operators, one module for each section of the panel. Each calls one function and reports its errors.

All of them work from a script without a window, except painting:

    bpy.ops.distill.connect()                                     # starts the service if necessary
    settings = bpy.context.scene.distill
    settings.image_swatch = bpy.data.images.load("/path/to/swatch.png")
    bpy.ops.distill.region_add(name="Stone")                      # regions are needed for a layout only
    bpy.ops.distill.region_add(name="Moss")
    bpy.ops.distill.region_map_new(method="COLOR")                # split the swatch by color
    output = settings.parameters_synthesize                       # each job kind has such a group
    output.width, output.height, output.seed = 1024, 512, 7
    bpy.ops.distill.layout_new()                                  # filled with the first region
    bpy.ops.distill.fill(picture="layout", region=1, box=(0.0, 0.0, 1.0, 0.3))
    settings.use_layout = True
    bpy.ops.distill.run()                                         # returns at once
    bpy.ops.distill.wait(timeout=600.0)                           # until every job of this file has ended
    image = bpy.data.images[settings.last_result]                 # also connected to the active material

In a script, an operator that fails raises RuntimeError with the text that the panel would show.
"""

from . import (
    assets,
    edits,
    export,
    inputs,
    jobs,
    layout,
    mapping,
    maps,
    parameters,
    regions,
    results,
    service,
    swatch_tools,
)

classes = (
    *service.classes,
    *inputs.classes,
    *maps.classes,
    *swatch_tools.classes,
    *regions.classes,
    *layout.classes,
    *parameters.classes,
    *jobs.classes,
    *results.classes,
    *edits.classes,
    *export.classes,
    *mapping.classes,
    *assets.classes,
)
