"""The crop rectangle and the four corners while they are dragged."""

from __future__ import annotations

import pytest

from blender_addon.scene.frames import CornersFrame, CropFrame

SIZE = (400, 300)


def dragged(frame: CropFrame | CornersFrame, start: tuple[float, float], *moves: tuple[float, float]) -> None:
    frame.press(start, reach=10)
    for move in moves:
        frame.move(*move)
    frame.release()


def test_a_drag_on_the_whole_picture_draws_a_rectangle() -> None:
    frame = CropFrame(SIZE)
    assert frame.text == ""
    dragged(frame, (100.4, 50.2), (100, 100), (100, 50))
    assert frame.text == "100,50,200,150"


def test_a_rectangle_drawn_to_the_upper_left_is_the_same() -> None:
    frame = CropFrame(SIZE)
    dragged(frame, (300, 200), (-200, -150))
    assert frame.text == "100,50,200,150"


def test_a_rectangle_stays_in_the_picture() -> None:
    frame = CropFrame(SIZE)
    dragged(frame, (300, 200), (1000, 1000))
    assert frame.text == "300,200,100,100"


@pytest.mark.parametrize(
    ("handle", "move", "text"),
    [
        ((100, 50), (-20, 10), "80,60,220,140"),
        ((200, 50), (30, -10), "100,40,200,160"),
        ((300, 125), (30, 30), "100,50,230,150"),
        ((300, 200), (500, 500), "100,50,300,250"),
        ((100, 125), (500, 0), "268,50,32,150"),
    ],
)
def test_a_handle_moves_its_sides_only(handle: tuple[int, int], move: tuple[int, int], text: str) -> None:
    frame = CropFrame(SIZE, "100,50,200,150")
    dragged(frame, handle, move)
    assert frame.text == text


def test_a_drag_inside_moves_the_rectangle_up_to_the_rim() -> None:
    frame = CropFrame(SIZE, "100,50,200,150")
    dragged(frame, (180, 100), (30, 20))
    assert frame.text == "130,70,200,150"
    dragged(frame, (180, 100), (-900, 900), (880, -880))
    assert frame.text == "110,90,200,150", "the rectangle follows the pointer again when it comes back"


def test_a_drag_outside_draws_another_rectangle() -> None:
    frame = CropFrame(SIZE, "100,50,200,150")
    dragged(frame, (10, 10), (60, 60))
    assert frame.text == "10,10,60,60"


def test_a_click_outside_keeps_the_rectangle() -> None:
    frame = CropFrame(SIZE, "100,50,200,150")
    dragged(frame, (10, 10), (3, 3))
    assert frame.text == "100,50,200,150"


def test_reset_frames_the_whole_picture() -> None:
    frame = CropFrame(SIZE, "100,50,200,150")
    frame.reset()
    assert frame.text == ""


def test_a_corner_is_dragged_alone() -> None:
    frame = CornersFrame(SIZE, "100,50 300,60 310,250 90,240")
    dragged(frame, (104, 53), (-30, -20))
    assert frame.text == "70.00,30.00 300.00,60.00 310.00,250.00 90.00,240.00"


def test_the_middle_of_a_side_moves_its_two_corners() -> None:
    frame = CornersFrame(SIZE, "100,50 300,50 300,250 100,250")
    dragged(frame, (200, 50), (5, -20))
    assert frame.text == "105.00,30.00 305.00,30.00 300.00,250.00 100.00,250.00"


def test_a_drag_inside_moves_all_corners_and_keeps_their_shape() -> None:
    frame = CornersFrame(SIZE, "100,50 300,60 310,250 90,240")
    dragged(frame, (200, 150), (-500, 0))
    assert frame.text == "10.00,50.00 210.00,60.00 220.00,250.00 0.00,240.00"


def test_a_drag_outside_of_the_corners_moves_nothing() -> None:
    frame = CornersFrame(SIZE, "100,50 300,60 310,250 90,240")
    dragged(frame, (20, 20), (50, 50))
    assert frame.text == "100.00,50.00 300.00,60.00 310.00,250.00 90.00,240.00"


def test_crossed_corners_are_a_problem() -> None:
    frame = CornersFrame(SIZE, "100,50 300,60 310,250 90,240")
    assert frame.problem(lens=0.2) == ""
    dragged(frame, (100, 50), (280, 0))
    assert "no rectangle" in frame.problem(lens=0.2)
