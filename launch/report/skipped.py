"""Says how many broken rows of its data files an environment left out."""

from agile_ray.agent.environment import Environment, skipped


def print_skipped(environment: Environment) -> None:
    """Print one line, if there are any."""
    problems = skipped(environment)
    if problems:
        print(f"env.skip_bad: {len(problems)} broken rows are left out; the first: {problems[0]}")
