"""Hints as planes, and the clicks of a patient user."""

import numpy as np

from util.clicking import BOX, NEGATIVE, POSITIVE, RADIUS, draw_box, draw_stroke, find_next_click, iou, make_planes
from util.mask_rule import VOID


def square(left, top, right, bottom, size=40):
    truth = np.zeros((size, size), np.uint8)
    truth[top:bottom, left:right] = 1
    return truth


def test_first_click_is_in_the_middle_of_the_object():
    assert find_next_click(np.zeros((40, 40), bool), square(4, 10, 15, 21)) == (9, 15, True)


def test_next_click_is_in_the_largest_error_and_says_which_kind_it_is():
    truth, found = square(4, 10, 15, 21), square(4, 10, 15, 21) > 0
    found[30:37, 30:37] = True
    assert find_next_click(found, truth) == (33, 33, False)
    found[11:20, 5:14] = False
    assert find_next_click(found, truth)[2] is True


def test_nobody_clicks_where_anything_is_right():
    truth = square(4, 10, 15, 21)
    truth[30:, :] = VOID
    found = truth > 0
    assert find_next_click(found, truth) is None and iou(found, truth) == 1


def test_a_pixel_is_clicked_only_once():
    truth = square(5, 5, 6, 6)
    assert find_next_click(np.zeros((40, 40), bool), truth, clicked=[(5, 5)]) is None


def test_clicks_away_from_the_middle_stay_in_the_error():
    nothing, truth = np.zeros((40, 40), bool), square(4, 10, 31, 21)
    places = [find_next_click(nothing, truth, depth=(0.5, which)) for which in (0, 0.3, 0.7, 0.999)]
    assert len(set(places)) == 4 and all(truth[y, x] for x, y, _ in places)


def test_last_hint_wins_where_signs_meet():
    planes = make_planes(40, 40)
    draw_stroke(planes, [(10, 10)])
    draw_stroke(planes, [(10, 10), (30, 10)], positive=False)
    assert not planes[POSITIVE, 10, 10] and planes[NEGATIVE, 10, 10:31].all()
    assert planes[NEGATIVE, 10 + RADIUS - 1, 20] and not planes[NEGATIVE, 10 + RADIUS + 2, 20]


def test_a_box_replaces_the_one_before_and_may_leave_the_picture():
    planes = make_planes(20, 30)
    draw_box(planes, 1, 2, 8, 9)
    draw_box(planes, 20, -5, 40, 4)
    assert planes[BOX].sum() == 10 * 5 and planes[BOX, :5, 20:].all()
    draw_stroke(planes, [(100, 100)])
    assert not planes[POSITIVE].any()
