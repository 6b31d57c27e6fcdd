"""Ids and entities that are whole numbers live through the loop like texts."""

from pathlib import Path

import noria

CHANGES = (
    ('f"p{number:05d}"', "number"),
    ("courier, district = COURIERS[number % 6]", "courier, district = number % 6"),
)


def test_ids_and_entities_may_be_whole_numbers(tiny: Path) -> None:
    module = tiny / "tiny.py"
    text = module.read_text(encoding="utf-8")
    for before, after in CHANGES:
        assert before in text
        text = text.replace(before, after)
    module.write_text(text, encoding="utf-8")
    with noria.open(tiny) as project:
        report = project.replay(until="2024-02-05")
        assert report.predictions == 96
        assert (report.parity_rows, report.parity_differences) == (96, 0)
        assert report.labelled > 0
        assert report.a_prediction is not None
        assert report.a_prediction.isdecimal()
        assert project.trace(report.a_prediction).features_equal
