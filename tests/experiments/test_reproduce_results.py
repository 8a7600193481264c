"""Means over seeds, comparisons of rows, and what a table says of their order."""

import pytest

from experiments.reproduce.page import Page
from experiments.reproduce.results import Result, compare, holm, rises
from experiments.reproduce.scales import SCALES
from experiments.reproduce.tables import Row, Table, Variant


def results(*rows):
    """Results of rows of (group, label, values by seed)."""
    variant = Variant("name", "config")
    return [
        Result(Row(group, label, variant, "error_top1", None), values, 1, 1)
        for group, label, values in rows
    ]


def test_rows_are_compared_over_the_seeds_that_both_have():
    first, second = {0: 5.0, 1: 6.0, 2: 7.0, 3: 1.0}, {0: 7.0, 1: 7.0, 2: 7.0}
    (found,) = compare(results(("a", "x", first), ("a", "y", second), ("b", "z", first)))
    assert (found.first, found.second, found.seeds, found.mean) == ("x", "y", 3, -1)
    # Differences -2, -1, 0: their mean is 3 ** 0.5 standard errors from 0, t(2) at 97.5 % is 4.303.
    assert (found.low, found.high) == pytest.approx(
        (-1 - 4.3027 / 3**0.5, -1 + 4.3027 / 3**0.5), 1e-4
    )
    assert found.p == pytest.approx(0.2254, abs=1e-4)


def test_rises_over_a_baseline_are_paired_by_seed():
    found = results(
        ("none", "x", {0: 1.0, 1: 2.0}),
        ("none", "y", {0: 1.0, 1: 1.0}),
        ("some", "x", {0: 4.0, 1: 4.0}),
        ("some", "y", {0: 2.0, 1: 5.0, 2: 9.0}),
    )
    rise = rises(found, "none")
    assert [(r.row.label, r.values) for r in rise] == [
        ("x", {0: 3.0, 1: 2.0}),
        ("y", {0: 1.0, 1: 4.0}),
    ]
    assert [one.mean for one in compare(rise)] == [0.0]


def test_the_correction_for_several_tests():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


def test_equal_differences_have_no_test():
    (found,) = compare(results(("", "x", {0: 5.0, 1: 6.0}), ("", "y", {0: 6.0, 1: 7.0})))
    assert (found.mean, found.low, found.high, found.p) == (-1, None, None, None)


def test_one_seed_is_not_compared():
    assert not compare(results(("", "x", {0: 5.0}), ("", "y", {0: 6.0, 1: 7.0})))


def text_of(monkeypatch, found):
    """A page with these results."""
    monkeypatch.setattr(Page, "results", lambda self: found)
    return Page("table0", Table("", ()), "short", SCALES["short"], [], []).markdown()


def test_an_order_is_told_apart_by_the_tests_of_the_whole_table(monkeypatch):
    rows = []
    for group in "abcd":
        rows += [(group, "x", {0: 1.0, 1: 2.0, 2: 3.0}), (group, "y", {0: 3.0, 1: 4.6, 2: 4.4})]
    found = [
        r._replace(row=r.row._replace(paper=float(r.row.label == "y"))) for r in results(*rows)
    ]
    differences = compare(found)
    assert differences[0].p < 0.05 < differences[0].corrected
    text = text_of(monkeypatch, found)
    assert text.count("x < y (the paper's order; by means alone, for not all are told apart") == 4
    assert f"| {differences[0].p:.3f} | {differences[0].corrected:.3f} |" in text


@pytest.mark.parametrize(
    ("paper", "said"),
    [
        ((5.0, 5.0, 6.0), "y < x < z (the paper's order; one seed"),
        ((5.0, 5.0, 4.0), "y < x < z (the paper: z < x = y; one seed"),
    ],
)
def test_what_is_equal_in_the_paper_may_have_either_order(monkeypatch, paper, said):
    found = results(("", "x", {0: 2.0}), ("", "y", {0: 1.0}), ("", "z", {0: 3.0}))
    found = [r._replace(row=r.row._replace(paper=p)) for r, p in zip(found, paper, strict=True)]
    assert f"- {said}" in text_of(monkeypatch, found)


def test_a_response_of_zero_is_a_mean_of_zero():
    (found,) = results(("", "x", {0: 0.0, 1: 2.0}))
    assert found._replace(row=found.row._replace(measure="response2")).mean == 0
