"""What a user does in the viewer: choose, type, click."""

import re

from playwright.sync_api import Locator, Page, expect


class Viewer:
    """The viewer's page. Fields of the form have the names that its address uses."""

    def __init__(self, page: Page, home: str) -> None:
        self.page = page
        self.home = home
        self.panel = page.locator("#session")

    def start(self) -> None:
        """Load the page anew, without filters."""
        self.page.goto(self.home)
        expect(self.row(0)).to_be_visible()

    def choose(self, name: str, label: str) -> None:
        self._field(name).select_option(label=label)

    def write(self, name: str, text: str) -> None:
        self._field(name).click()
        self.page.keyboard.type(text)

    def order_by(self, title: str) -> None:
        """Highest first: by two clicks on the column, or, if the table leaves it out, in the form."""
        column = self.page.locator("#head a", has_text=title)
        if column.is_visible():
            column.click()
            expect(self.page.locator("#head [aria-sort=ascending]")).to_be_visible()
            column.click()
        else:
            self.choose("sort", title)
            self.choose("descending", "descending")
        expect(self.page.locator("#head [aria-sort=descending]")).to_have_text(f"{title} ↓")

    def found(self, count: int, of: int) -> None:
        """Wait until the table lists so many sessions."""
        expect(self.page.locator("#summary")).to_contain_text(re.compile(f"^{count:,} of {of:,} sessions"))

    def row(self, index: int) -> Locator:
        return self.page.locator("#rows .row:has(.cell)").nth(index)

    def cells(self, column: str) -> list[str]:
        return self.page.locator(f"#rows .cell.{column}").all_inner_texts()

    def open(self, index: int) -> None:
        """Click a row, and wait for its session."""
        self.row(index).click()
        expect(self.panel.locator("h1")).to_be_visible()

    def _field(self, name: str) -> Locator:
        """A field of the form; the fold that hides it is opened."""
        field = self.page.locator(f"#filters [name={name}]")
        if not field.is_visible():
            self.page.get_by_text("filters", exact=True).click()
        return field
