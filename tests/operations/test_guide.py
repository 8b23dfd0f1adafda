"""Each block of commands in the guide is run by a test, and no test runs what is not there."""

import pytest

from tests.operations.guide import Block, blocks, blocks_of, run_by_tests, runs_of


@pytest.mark.parametrize(
    "block", blocks().values(), ids=lambda block: f"{block.section}-{block.number}"
)
def test_a_test_runs_the_block(block: Block) -> None:
    assert (block.section, block.number) in run_by_tests(), (
        f"No test in tests/operations runs block {block.number} under {block.section!r}"
        f" (line {block.line} of docs/operating.md)."
    )


def test_no_test_runs_a_block_that_is_not_there() -> None:
    assert run_by_tests() <= set(blocks())


def test_blocks_are_found_by_heading_and_number() -> None:
    markdown = (
        "# Guide\n## One\n```sh\n# no heading\nfirst\n```\ntext\n```sh\nsecond\n```\n"
        "### Two\n```yaml\nno: shell\n```\n```sh\nthird\n```\n"
    )

    found = [(block.section, block.number, block.text) for block in blocks_of(markdown)]

    assert found == [
        ("One", 1, "# no heading\nfirst\n"),
        ("One", 2, "second\n"),
        ("Two", 1, "third\n"),
    ]


def test_runs_are_read_from_tests_alone() -> None:
    source = (
        "def test_a(stage):\n    stage.run('One', 2, KID='x')\n"
        "def helper(stage):\n    stage.run('Two')\n"
        "def test_b(stage):\n    with stage.start('Three'):\n        stage.other('Four')\n"
    )

    assert set(runs_of(source)) == {("One", 2), ("Three", 1)}
