"""`agile-ray report`.

run folder/
    config.yaml  run.json  history.jsonl    read
    segments/  abandoned.jsonl              read: every report audits the books
    evaluation/<entry>.parquet              read: one per policy of the final evaluation
    report.html                             always written
    report.json                             written by a training that finishes, and rewritten here if it exists
"""

from launch.commands.paths import RunPath


def command(
    run: RunPath,
) -> None:
    """Print a run's results and write its page, report.html.

    Works while the run is training, and after it.

    Example: agile-ray report runs/quickstart
    """
    from agile_ray.record.folder import RunFolder
    from launch.report.console import plain_console
    from launch.report.files import compose, load, write, write_page
    from launch.report.tables import show

    folder = RunFolder(run)
    found = compose(folder) if folder.config.is_file() else load(folder)
    if folder.is_finished:
        write(folder, found)
    else:
        write_page(folder, found)
    show(found, plain_console())
    print(folder.report_page)
