import bpy

settings = bpy.context.scene.distill.parameters_synthesize

settings.width = 1024
settings.height = 1024
settings.tile = "xy"
settings.preset = "standard"
