import bpy

settings = bpy.context.scene.distill.parameters_synthesize

settings.width = 2048
settings.height = 512
settings.tile = "x"
settings.preset = "standard"
