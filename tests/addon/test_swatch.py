"""The swatch in the panel: how it is chosen, the part of it that is used, the plan, the comparison."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from blender_addon import wire
from blender_addon.link import events
from blender_addon.link.records import JobRecord
from blender_addon.scene import assets, comparison, image_io, map_overlay, plans, recall, requests, session, swatch
from tests.addon import scenes
from tests.addon.conftest import LiveService, error_of, pump_until


def settings(blender: Any) -> Any:
    return blender.context.scene.distill


def drafted(blender: Any) -> Any:
    (draft,) = requests.drafts(blender.context.scene)
    return draft.parameters


# ---------------------------------------------------------------------------------------------- choosing the swatch


def test_the_example_can_be_synthesized_at_once(service: LiveService, blender: Any) -> None:
    assert not blender.ops.distill.run.poll()
    blender.ops.distill.example()
    assert [region.name for region in settings(blender).regions] == ["Stone", "Moss"]
    scenes.small_output()
    assert tuple(scenes.make().size) == (128, 64)
    assert set(scenes.newest().request["inputs"]) == {
        *("swatch", "regions", "layout"),
        *("map:normal", "map:roughness", "map:height"),
    }


def test_the_example_keeps_the_regions_of_the_scene(blender: Any) -> None:
    scenes.two_regions()
    blender.ops.distill.example()
    assert [region.name for region in settings(blender).regions] == ["Brick", "Moss"]
    assert settings(blender).image_layout is None
    assert not settings(blender).use_layout


def test_a_dropped_file_becomes_the_swatch(blender: Any, tmp_path: Path) -> None:
    path = tmp_path / "wall.png"
    path.write_bytes(image_io.encode_png(scenes.checks()))
    handler = blender.types.DISTILL_FH_swatch
    assert {".png", ".jpg", ".tif"} <= set(handler.bl_file_extensions.split(";"))
    for editor, accepted in {"VIEW_3D": True, "IMAGE_EDITOR": True, "TEXT_EDITOR": False}.items():
        assert handler.poll_drop(SimpleNamespace(area=SimpleNamespace(type=editor))) is accepted
    module, _, name = handler.bl_import_operator.partition(".")
    getattr(getattr(blender.ops, module), name)("INVOKE_DEFAULT", filepath=str(path))  # as Blender does
    assert settings(blender).image_swatch.name == "wall.png"


def test_a_file_that_is_no_picture_is_not_chosen(blender: Any, tmp_path: Path) -> None:
    path = tmp_path / "text.png"
    path.write_text("no picture")
    assert "cannot be" in error_of(blender.ops.distill.picture_from_file, filepath=str(path))
    assert settings(blender).image_swatch is None
    assert "text.png" not in blender.data.images


@pytest.mark.parametrize("kind", ["image", "material"])
def test_an_asset_of_another_file_becomes_the_swatch(blender: Any, tmp_path: Path, kind: str) -> None:
    material = scenes.material_with_image()
    thing = {"image": material.node_tree.nodes["Image Texture"].image, "material": material}[kind]
    thing.name = "Stored"
    thing.asset_mark()
    library = tmp_path / "library.blend"
    blender.ops.wm.save_as_mainfile(filepath=str(library))
    blender.ops.wm.read_homefile(use_factory_startup=True)
    asset = SimpleNamespace(local_id=None, full_library_path=str(library), id_type=kind.upper(), name="Stored")
    image = assets.maps_of(asset).color
    assert (image_io.pixels_of(image, "swatch")[..., :3] == scenes.checks()).all()
    assert "Stored" not in blender.data.materials


def test_an_asset_without_an_image_is_refused(blender: Any) -> None:
    material = blender.data.materials.new("Plain")
    asset = SimpleNamespace(local_id=material, full_library_path="", id_type="MATERIAL", name="Plain")
    with pytest.raises(wire.WireError, match="“Plain” has no image as its base color"):
        assets.maps_of(asset)


def test_a_swatch_without_a_file_is_packed_when_the_file_is_saved(blender: Any, tmp_path: Path) -> None:
    image = blender.data.images.new("clipboard", 64, 64)
    image.pixels.foreach_set(np.full(64 * 64 * 4, 0.2, np.float32))
    image.update()
    settings(blender).image_swatch = image
    scenes.save_and_reload(tmp_path / "a.blend")
    pixels = image_io.pixels_of(settings(blender).image_swatch, "swatch")
    assert (pixels[..., :3] == 51).all()


# ---------------------------------------------------------------------------------------------- the part that is used


def test_the_crop_is_sent_with_each_kind_of_job(blender: Any) -> None:
    scenes.swatch()
    blender.ops.distill.crop_swatch(box=(8, 4, 40, 50))
    assert drafted(blender)["crop"] == "8,4,40,50"
    scenes.content()
    assert drafted(blender)["crop"] == "8,4,40,50"


def test_a_crop_is_cut_to_the_picture(blender: Any) -> None:
    scenes.swatch()
    blender.ops.distill.crop_swatch(box=(8, 4, 4000, 5000))
    assert drafted(blender)["crop"] == "8,4,56,60"


def test_a_crop_that_is_too_small_is_refused(blender: Any) -> None:
    scenes.swatch()
    assert "sides of at least 32" in error_of(blender.ops.distill.crop_swatch, box=(0, 0, 40, 8))


def test_corners_replace_the_crop_and_the_crop_replaces_the_corners(blender: Any) -> None:
    scenes.swatch()
    blender.ops.distill.crop_swatch(box=(8, 4, 40, 50))
    blender.ops.distill.straighten_swatch(corners=(5, 5, 60, 10, 50, 50, 10, 60), lens=0.1)
    values = drafted(blender)
    assert (values["crop"], values["corners"], values["lens"]) == ("", "5,5 60,10 50,50 10,60", pytest.approx(0.1))
    blender.ops.distill.crop_swatch(box=(8, 4, 40, 50))
    assert drafted(blender)["corners"] == ""


def test_corners_in_the_wrong_order_are_refused(blender: Any) -> None:
    scenes.swatch()
    corners = (60, 10, 5, 5, 50, 50, 10, 60)
    assert "top left, top right" in error_of(blender.ops.distill.straighten_swatch, corners=corners)


def test_the_whole_picture_is_used_again(blender: Any) -> None:
    scenes.swatch()
    blender.ops.distill.straighten_swatch(corners=(5, 5, 60, 10, 50, 50, 10, 60), lens=0.1)
    blender.ops.distill.whole_swatch()
    values = drafted(blender)
    assert (values["crop"], values["corners"], values["lens"]) == ("", "", 0.0)


def test_the_real_width_is_that_of_the_cropped_part(blender: Any) -> None:
    scenes.swatch()
    settings(blender).parameters_synthesize.real_width = 2.0
    blender.ops.distill.crop_swatch(box=(0, 0, 32, 64))
    assert drafted(blender)["real_width"] == pytest.approx(1.0)
    blender.ops.distill.whole_swatch()
    assert drafted(blender)["real_width"] == pytest.approx(2.0)


def test_another_swatch_is_used_as_a_whole(blender: Any) -> None:
    scenes.swatch("first")
    blender.ops.distill.crop_swatch(box=(8, 4, 40, 50))
    session.pump()
    settings(blender).image_swatch.name = "renamed"
    session.pump()
    assert drafted(blender)["crop"] == "8,4,40,50"
    scenes.swatch("second")
    session.pump()
    assert drafted(blender)["crop"] == ""


def test_a_crop_that_comes_with_another_swatch_stays(blender: Any) -> None:
    scenes.swatch("first")
    blender.ops.distill.crop_swatch(box=(8, 4, 40, 50))
    session.pump()
    scenes.swatch("second")
    settings(blender).parameters_synthesize.crop = "0,0,50,50"
    session.pump()
    assert drafted(blender)["crop"] == "0,0,50,50"


def test_the_crop_is_saved_with_the_file(blender: Any, tmp_path: Path) -> None:
    scenes.swatch()
    blender.ops.distill.crop_swatch(box=(8, 4, 40, 50))
    session.pump()
    scenes.save_and_reload(tmp_path / "a.blend")
    session.pump()
    assert drafted(blender)["crop"] == "8,4,40,50"


# ---------------------------------------------------------------------------------------------- the plan


class Requests:
    """Takes the place of the thread: remembers the plans that are requested."""

    def __init__(self) -> None:
        self.keys: list[Any] = []
        self.pictures: list[dict[str, Any]] = []

    def plan(self, key: Any, kind: str, parameters: Any, pictures: Any) -> None:
        self.keys.append(key)
        self.pictures.append(pictures)


def rest(thread: Requests, connected: bool = True) -> None:
    """Updates the plan as the timer does, until the settings have been at rest."""
    session.current().plans.update(thread, connected)
    time.sleep(plans.OPTIONS.delay + 0.05)
    session.current().plans.update(thread, connected)


PLAN = wire.Plan((0, 0, 64, 64), 1.0, 512, 512, "uses all", seconds=40.0, memory_bytes=2_100_000_000, notes=("A note",))


def test_a_plan_is_requested_once_the_settings_are_at_rest(blender: Any) -> None:
    thread = Requests()
    rest(thread)
    assert thread.keys == [], "there is no swatch"
    scenes.swatch()
    session.current().plans.update(thread, True)
    settings(blender).parameters_synthesize.scale = 0.5
    session.current().plans.update(thread, True)
    assert thread.keys == []
    rest(thread)
    rest(thread)
    assert len(thread.keys) == 1
    assert thread.pictures[0]["swatch"]().startswith(b"\x89PNG")


def test_corners_of_a_wrong_form_are_a_note_instead_of_a_plan(blender: Any) -> None:
    thread = Requests()
    scenes.swatch()
    settings(blender).parameters_synthesize.corners = "1,2,three"
    rest(thread)
    assert thread.keys == []
    assert "corners" in session.current().plans.notes(blender.context.scene)[0]
    settings(blender).parameters_synthesize.corners = ""
    rest(thread)
    assert len(thread.keys) == 1


def test_no_plan_is_requested_without_a_service(blender: Any) -> None:
    thread = Requests()
    scenes.swatch()
    rest(thread, connected=False)
    assert thread.keys == []
    rest(thread)
    assert len(thread.keys) == 1


def test_a_plan_is_shown_until_the_settings_change(blender: Any) -> None:
    thread = Requests()
    scenes.swatch()
    rest(thread)
    session.current().plans.on_plan(events.PlanReceived(thread.keys[0], PLAN))
    assert session.current().plans.current(blender.context.scene) == PLAN
    assert session.current().plans.notes(blender.context.scene) == ("A note",)
    assert plans.estimate(PLAN) == "About 40 s, 2.1 GB of memory"
    settings(blender).parameters_synthesize.seed = 5
    assert session.current().plans.current(blender.context.scene) == PLAN, "a seed changes no plan"
    settings(blender).parameters_synthesize.width = 1024
    assert session.current().plans.current(blender.context.scene) is None
    assert session.current().plans.newest(blender.context.scene) == PLAN
    scenes.swatch("another")
    assert session.current().plans.newest(blender.context.scene) is None, "it says nothing about another swatch"


def test_a_plan_of_earlier_settings_is_dropped(blender: Any) -> None:
    thread = Requests()
    scenes.swatch()
    rest(thread)
    settings(blender).parameters_synthesize.width = 1024
    rest(thread)
    session.current().plans.on_plan(events.PlanReceived(thread.keys[0], PLAN))
    assert session.current().plans.newest(blender.context.scene) is None
    session.current().plans.on_plan(events.PlanReceived(thread.keys[1], PLAN))
    assert session.current().plans.current(blender.context.scene) == PLAN


def test_what_the_service_refuses_is_a_note_before_the_run(blender: Any) -> None:
    thread = Requests()
    scenes.swatch()
    rest(thread)
    error = wire.WireError("invalid-parameter", "crop lies outside of the swatch")
    session.current().plans.on_plan(events.PlanReceived(thread.keys[0], error=error))
    assert session.current().plans.notes(blender.context.scene) == (error.sentence,)


def test_no_plan_is_requested_for_a_large_unsaved_swatch(blender: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans, "OPTIONS", plans.PlanOptions(delay=0.0, max_pixels=32 * 32))
    thread = Requests()
    settings(blender).image_swatch = blender.data.images.new("generated", 64, 64)
    rest(thread)
    assert thread.keys == []
    assert "Save the swatch" in session.current().plans.notes(blender.context.scene)[0]
    scenes.swatch()
    rest(thread)
    assert len(thread.keys) == 1


def test_the_service_plans_what_the_panel_shows(service: LiveService, blender: Any) -> None:
    blender.ops.distill.example()
    blender.ops.distill.connect()
    settings(blender).parameters_synthesize.scale = 0.5
    pump_until(lambda: session.current().plans.current(blender.context.scene))
    found = session.current().plans.current(blender.context.scene)
    assert (found.width, found.height, found.scale) == (512, 512, 0.5)
    assert "448 x 448" in found.sentence
    assert session.current().of_this_file() == []


def test_the_label_maps_are_part_of_the_plan_unless_they_are_large(
    blender: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    thread = Requests()
    blender.ops.distill.example()
    rest(thread)
    assert set(thread.pictures[0]) == {"swatch", "regions", "layout"}
    monkeypatch.setattr(plans, "OPTIONS", plans.PlanOptions(delay=0.0, max_map_pixels=100))
    rest(thread)
    assert set(thread.pictures[1]) == {"swatch"}


# ---------------------------------------------------------------------------------------------- the comparison


def compared(side: str) -> np.ndarray:
    return image_io.pixels_of(comparison.image(side), "picture")[..., :3]


def test_the_swatch_is_compared_before_and_after_its_light_is_evened(service: LiveService, blender: Any) -> None:
    scenes.swatch()
    blender.ops.distill.connect()
    settings(blender).parameters_synthesize.even_light = 1.0
    comparison.start(blender.context.scene)
    assert comparison.is_pending()
    pump_until(lambda: not comparison.is_pending())
    assert (compared("before") == scenes.checks()).all()
    assert (compared("after") == scenes.checks() // 2).all()
    assert session.current().of_this_file() == [], "the comparison is no result"


def test_a_comparison_follows_the_slider(service: LiveService, blender: Any) -> None:
    scenes.swatch()
    blender.ops.distill.connect()
    settings(blender).parameters_synthesize.even_light = 1.0
    comparison.start(blender.context.scene)
    pump_until(lambda: not comparison.is_pending())
    before = comparison.image("before")
    settings(blender).parameters_synthesize.even_light = 0.0
    comparison.update(blender.context.scene)
    pump_until(lambda: not comparison.is_pending())
    assert (compared("after") == scenes.checks()).all()
    assert comparison.image("before") == before, "only the light was changed"
    comparison.update(blender.context.scene)
    assert not comparison.is_pending()


def test_compared_pictures_are_not_saved(service: LiveService, blender: Any, tmp_path: Path) -> None:
    scenes.swatch()
    blender.ops.distill.connect()
    comparison.start(blender.context.scene)
    pump_until(lambda: not comparison.is_pending())
    scenes.save_and_reload(tmp_path / "a.blend")
    assert comparison.image("before") is None
    assert not [image.name for image in blender.data.images if "Even Lighting" in image.name]


def test_a_comparison_without_a_service_reports_the_error(blender: Any) -> None:
    scenes.swatch()
    comparison.start(blender.context.scene)
    pump_until(lambda: not comparison.is_pending())
    assert comparison.error().code == "service-unreachable"
    comparison.stop()


# ---------------------------------------------------------------------------------------------- belonging to a swatch


def test_another_swatch_does_not_use_the_region_map_of_the_first(blender: Any) -> None:
    blender.ops.distill.example()
    session.pump()
    assert settings(blender).use_layout
    scenes.swatch("photograph.png")
    session.pump()
    assert not settings(blender).use_layout
    assert settings(blender).image_regions is not None  # ticking the box brings it back
    assert "map belongs to the earlier swatch" in session.current().notice.text


def test_a_swatch_that_comes_with_its_region_map_keeps_the_layout(blender: Any) -> None:
    blender.ops.distill.example()
    session.pump()
    scenes.swatch("photograph.png")
    settings(blender).image_regions = settings(blender).image_regions.copy()
    session.pump()
    assert settings(blender).use_layout


def test_a_chosen_swatch_is_noticed_once_and_an_opened_file_is_not(blender: Any) -> None:
    session.pump()
    swatch.was_chosen()
    scenes.swatch("photograph.png")
    session.pump()
    assert swatch.was_chosen()
    assert not swatch.was_chosen()
    swatch.start()  # as when a file is opened
    session.pump()
    assert not swatch.was_chosen()


def test_a_swatch_that_is_downloaded_for_a_result_keeps_its_crop(blender: Any) -> None:
    scenes.swatch()
    session.pump()
    swatch.set_crop(settings(blender), "0,0,32,32")
    session.pump()
    record = JobRecord("job", "synthesize", "bricks 0", {}, session.current().document)
    recall.complete(blender.context.scene, record, {"swatch": "sha"}, {"swatch": scenes.PNG})
    session.pump()
    assert settings(blender).parameters_synthesize.crop == "0,0,32,32"


def test_the_overlay_covers_a_model_only_while_its_layout_is_painted(blender: Any) -> None:
    blender.ops.distill.example()
    thing, layout = blender.context.active_object, settings(blender).image_layout
    assert not map_overlay.is_painted(thing, layout)
    blender.ops.object.mode_set(mode="TEXTURE_PAINT")
    assert map_overlay.is_painted(thing, layout)
