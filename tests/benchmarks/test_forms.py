"""The benchmark of forms runs, and what it says of kernels and bytes holds at any load."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import forms


def test_every_form_runs_its_kernel_from_a_file_of_its_bits() -> None:
    rows = {row.form: row for row in forms.measure(256, [1, 4], turns=2, products=1e6, chain=1)}
    assert set(rows) == set(forms.FORMS)
    for form, row in rows.items():
        kernel = "MatMulNBits" if form.startswith("MatMulNBits") else "DynamicQuantizeMatMul"
        assert row.kernel == ("MatMulIntegerToFloat" if form.endswith("known") else kernel)
        assert set(row.times) == {1, 4}
        assert min(row.times.values()) > 0
    four, three = rows["int8, 4 bits, 32"], rows["int8, 3 bits, 32"]
    assert three.bytes <= 0.85 * four.bytes
    assert four.error < 0.11 < three.error < 0.21
