"""Pipelines as text: parsed, printed, and refused with the nearest name."""

import pytest

from qcomp.errors import UsageError
from qcomp.passmanager import Pipeline


@pytest.mark.parametrize(
    "text",
    [
        "merge-rotations,cancel-inverses",
        "to-basis{gates=[cz,rz,sx,x]}",
        "repeat{times=4}(merge-rotations,cancel-inverses),merge-rotations",
        "quantize-weights{bits=8,group=64}",
        "best{cost=two_qubit}(way(merge-rotations),way(cancel-inverses,fuse-one-qubit))",
        'best{cost="gates+3*two_qubit"}(way(repeat{times=2}(merge-rotations)),way())',
        "",
    ],
)
def test_printing_a_parsed_pipeline_gives_its_text(text: str) -> None:
    printed = str(Pipeline.parse(text))
    assert str(Pipeline.parse(printed)) == printed
    assert printed == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("merge-rotation", "did you mean 'merge-rotations'"),
        ("merge-rotations{", "is no pipeline"),
        ("quantize-weights{bitz=4}", "no option 'bitz'"),
        ("quantize-weights{bits=many}", "bits"),
        ("merge-rotations(cancel-inverses)", "takes no group"),
        ("repeat{times=0}(merge-rotations)", "between 1 and"),
        ("repeat", "takes times=N"),
        ("quantize-weights{bits=4,bits=8}", "stands twice"),
        ("best(merge-rotations)", "takes cost=SUM and ways"),
        ("best{cots=gates}(way(merge-rotations))", "takes cost=SUM and ways"),
        ("best{cost=gatse}(way(merge-rotations))", "did you mean 'gates'"),
        ("way{times=2}(merge-rotations)", "takes a group and no options"),
        ("best(way(canonicalise),way())", "works on graphs"),
    ],
)
def test_a_wrong_text_is_refused_with_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        Pipeline.parse(text)
    assert message in str(caught.value)
