"""What operators have in common: their return value, error reports, and the job that they work on."""

from typing import Any

import bpy
from bpy.app.translations import pgettext_iface as tr
from bpy.props import StringProperty
from bpy.types import Operator

from ... import wire
from ...link.records import JobRecord
from ...scene import results, session

Done = set[str]
"""What `execute` returns: {"FINISHED"} or {"CANCELLED"}, in Blender's spelling."""


def fail(operator: Operator, error: wire.WireError) -> Done:
    """Show an error in the panel; also report it, unless the artist pressed a button of the panel and sees it there."""
    session.current().show_error(error)
    if not (operator.options.is_invoke and bpy.context.region is not None and bpy.context.region.type == "UI"):
        operator.report({"ERROR"}, error.sentence)
    return {"CANCELLED"}


def job_property(empty: str = "the newest one") -> Any:
    """An operator's job; `empty` is the meaning of an empty id, for the tooltip."""
    return StringProperty(name="Job", description=f"Id of the job. Empty: {empty}", options={"SKIP_SAVE"})


def find_record(operator: Operator, state: str = "") -> JobRecord | None:
    """The operator's job, or the newest one (in a state, if given); reports a warning if there is none."""
    session.pump()
    if operator.job:
        image = results.image_of(operator.job)
        found = session.current().records.get(operator.job) or (results.record_of(image) if image else None)
    else:
        found = next((r for r in session.current().of_this_file() if state in ("", r.state)), None)
    if found is None:
        operator.report(
            {"WARNING"}, tr("There is no job {}").format(operator.job) if operator.job else tr("There is no job yet")
        )
    return found
