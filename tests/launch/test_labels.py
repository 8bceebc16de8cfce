"""Names beside the points of a chart."""

from itertools import combinations

from launch.report.page.labels import CHARACTER, LINE, place

FRAME = (44.0, 0.0, 360.0, 174.0)
POLICIES = {
    "sft": (53, 165), "never_ask": (53, 156), "random": (118, 104), "non_adaptive": (118, 86), "ppo": (118, 30),
    "ppo_sampled": (125, 34), "oracle": (124, 25), "ask_unless_search": (270, 13), "always_ask": (339, 13),
}  # fmt: skip
"""Where policies lie whose asks a chart shows: some of them near each other, some at an edge."""


def box(label):
    width = CHARACTER * len(label.text)
    left = label.x - {"start": 0, "middle": width / 2, "end": width}[label.anchor]
    return left, label.y - 0.85 * LINE, left + width, label.y + 0.15 * LINE


def meet(first, second):
    return first[0] < second[2] and second[0] < first[2] and first[1] < second[3] - 1e-9 and second[1] < first[3] - 1e-9


def test_names_of_policies_cover_neither_each_other_nor_a_point_and_stay_in_the_chart():
    boxes = [box(label) for label in place(POLICIES, within=FRAME)]
    assert not [pair for pair in combinations(boxes, 2) if meet(*pair)]
    points = [(x - 3.4, y - 3.4, x + 3.4, y + 3.4) for x, y in POLICIES.values()]
    assert not [(one, point) for one in boxes for point in points if meet(one, point)]
    assert all(left >= 44 and top >= 0 and right <= 360 and bottom <= 174 for left, top, right, bottom in boxes)


def test_a_name_stands_to_the_right_of_its_point_unless_it_would_leave_the_chart():
    inside, edge = place({"a": (100, 50), "b": (358, 90)}, within=FRAME)[::-1]
    assert (inside.text, inside.anchor, edge.text, edge.anchor) == ("a", "start", "b", "end")


def test_every_name_is_placed_even_if_there_is_no_room():
    crowd = {f"policy {number}": (100.0, 50.0) for number in range(30)}
    assert sorted(label.text for label in place(crowd, within=FRAME)) == sorted(crowd)
