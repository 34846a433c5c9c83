import bpy

settings = bpy.context.scene.distill.parameters_synthesize

settings.width = 2048
settings.height = 2048
settings.tile = "xy"
settings.preset = "fine"
