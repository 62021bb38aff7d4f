"""ONNX's own node tests on `regard.onnx.Backend`: one line for each operator, `passed/total`; fails if a test does.

    python python/tests/onnx_suite.py [-v]

The tests are those that the package onnx generates, run by its own runner (`onnx.backend.test.BackendTest`) at its own tolerances: rtol 1e-3
and atol 1e-7, and rtol 2⁻⁶ in bfloat16. A test belongs to the operator that its model's only node is, in the form of the opset that the
model imports. The variants whose names end in `_expanded` are not among them: those are the operators' function bodies, graphs of primitive
operators. A skipped test does not count as passed.
"""

from __future__ import annotations

import sys
import unittest
import warnings
from collections import defaultdict

from onnx import ModelProto
from onnx.backend.test import BackendTest
from onnx.backend.test.loader import load_model_tests

import regard.onnx
from regard.onnx.operators import OPERATORS

# Tests of each operator in onnx 1.23: fewer would mean that the selection is wrong.
EXPECTED = {
    "Attention 23": 69,
    "Attention 24": 13,
    "Attention 25": 11,
    "FlexAttention 1": 11,
    "LinearAttention 27": 14,
    "CausalConvWithState 27": 13,
    "RotaryEmbedding 23": 8,
    "TensorScatter 24": 3,
    "RMSNormalization 23": 19,
}


def operator_of(model: ModelProto | None) -> str | None:
    """`"Attention 23"`, where the model is one node of an operator that the backend runs."""
    if model is None or len(model.graph.node) != 1:
        return None
    node = model.graph.node[0]
    if (node.domain, node.op_type) not in OPERATORS:
        return None
    return f"{node.op_type} {next(opset.version for opset in model.opset_import if opset.domain == node.domain)}"


def names_by_operator() -> dict[str, list[str]]:
    """The names of the tests of each operator."""
    names: dict[str, list[str]] = defaultdict(list)
    for case in load_model_tests(kind="node"):
        operator = operator_of(case.model)
        if operator is not None:
            names[operator].append(f"{case.name}_cpu")
    return names


def run(names: list[str], tests: type[unittest.TestCase]) -> tuple[int, list[str]]:
    """How many passed, and what became of the others."""
    result = unittest.TestResult()
    unittest.TestSuite(tests(name) for name in names).run(result)
    problems = [f"{test.id()}: {text}" for test, text in [*result.failures, *result.errors, *result.skipped]]
    return result.testsRun - len(problems), problems


def main() -> int:
    """0 where every test passed and none is missing."""
    # Cases of other operators divide by zero on purpose while they are generated.
    warnings.filterwarnings("ignore", module=r"onnx|numpy")
    tests = BackendTest(regard.onnx.Backend, __name__).test_cases["OnnxBackendNodeModelTest"]
    names = names_by_operator()
    failed = names.keys() != EXPECTED.keys()
    sums: dict[str, tuple[int, int]] = defaultdict(lambda: (0, 0))
    for operator, total in EXPECTED.items():
        passed, problems = run(names[operator], tests)
        print(f"{operator:<24}{passed:>3}/{len(names[operator])}")
        failed |= bool(problems) or len(names[operator]) != total
        if "-v" in sys.argv:
            print(*problems, sep="\n", end="\n" if problems else "")
        for title in ("all operators", *(["Attention, all opsets"] if operator.startswith("Attention ") else [])):
            sums[title] = (sums[title][0] + passed, sums[title][1] + len(names[operator]))
    for title, (passed, total) in sums.items():
        print(f"{title:<24}{passed:>3}/{total}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
