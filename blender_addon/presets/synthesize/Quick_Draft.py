import bpy

settings = bpy.context.scene.distill.parameters_synthesize

settings.width = 512
settings.height = 512
settings.tile = "xy"
settings.preset = "draft"
