import bpy

settings = bpy.context.scene.distill.parameters_synthesize

settings.width = 1024
settings.height = 1024
settings.tile = "none"
settings.preset = "standard"
