import bpy

settings = bpy.context.scene.distill.parameters_restyle

settings.width = 0
settings.height = 0
settings.content_weight = -1.0
settings.preset = "draft"
