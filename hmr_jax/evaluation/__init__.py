"""Named evaluation protocols and the evaluator."""
