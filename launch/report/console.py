"""Where tables and lines are printed."""

from rich.console import Console


def plain_console(*, width: int | None = None, soft_wrap: bool = False) -> Console:
    """Standard output, where texts are printed as they stand: [x] is no markup and :x: no emoji, but part of a path.

    Args:
        width: in characters; None: that of the terminal.
        soft_wrap: leave the wrapping of long lines to the terminal.
    """
    return Console(width=width, soft_wrap=soft_wrap, markup=False, emoji=False)
