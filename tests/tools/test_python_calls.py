"""What a step costs where nearly nothing is computed: the Python around it."""

from benchmarks.run import RECALL, growth_rows


def test_a_step_of_recall_loss_enters_at_most_70_functions() -> None:
    (row,) = (row for row in growth_rows((2, 5, 32, 32)) if row.name == RECALL)
    row.run()  # what the first step alone does
    row.count_python_calls()
    assert 10 < row.python_calls <= 70
