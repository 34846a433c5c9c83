"""What operators have in common: their return value, error reports, and the job that they work on."""

from typing import Any

from bpy.props import StringProperty
from bpy.types import Operator

from ... import wire
from ...link.records import JobRecord
from ...scene import session

Done = set[str]
"""What `execute` returns: {"FINISHED"} or {"CANCELLED"}, in Blender's spelling."""


def fail(operator: Operator, error: wire.WireError) -> Done:
    """Show an error in the panel and report it."""
    session.current().show_error(error)
    operator.report({"ERROR"}, error.sentence)
    return {"CANCELLED"}


def job_property() -> Any:
    return StringProperty(name="Job", description="Id of the job. Empty: the newest one", options={"SKIP_SAVE"})


def find_record(operator: Operator, state: str = "") -> JobRecord | None:
    """The operator's job, or the newest one (in a state, if given); reports a warning if there is none."""
    session.pump()
    if operator.job:
        found = session.current().records.get(operator.job)
    else:
        found = next((r for r in session.current().of_this_file() if state in ("", r.state)), None)
    if found is None:
        operator.report({"WARNING"}, f"There is no job {operator.job}" if operator.job else "There is no job yet")
    return found
