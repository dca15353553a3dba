"""What measures: the benchmark's sections, a device's first hour, trainings with dropout."""


def print_row(*cells: str) -> None:
    """Print a row of a Markdown table."""
    print(f"| {' | '.join(cells)} |", flush=True)
