"""What a folder of data files holds, beside what was published: `agile-ray data`."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from agile_ray.errors import ConfigError
from envs import hotpotqa, medmcqa
from envs.productqa import lacking_gold
from envs.productqa_files import DATABASE, FACT, REASONING, SEARCH, Category, known_categories, open_folder
from envs.productqa_text import gold_query
from envs.sql import SqlTool

SHOWN_BROKEN = 20
"""Broken rows that are printed."""

PRODUCTQA = {  # AGILE, Table 12: fact, search and reasoning questions
    "blades": (2147, 769, 631), "blu_ray_players": (1630, 688, 572), "camera_lenses": (1859, 769, 1025),
    "cell_phones": (1636, 761, 374), "coffee_machines": (4184, 681, 638), "digital_scales": (2724, 391, 682),
    "dresses": (2287, 738, 263), "everyday_bras": (1942, 684, 336), "grips": (1771, 713, 413),
    "gun_holsters": (1679, 94, 1362), "handheld_flashlights": (2009, 768, 482), "headlight_bulbs": (1767, 644, 463),
    "headphones": (5432, 766, 583), "litter": (1860, 753, 507), "mice": (5653, 490, 294),
    "point_and_shoot_digital_cameras": (1696, 722, 565), "portable_power_banks": (3344, 673, 500),
    "printers": (1431, 760, 489), "space_heaters": (2283, 674, 498), "wrist_watches": (2169, 757, 389),
    "all_pans": (973, 747, 275), "camera_cases": (975, 706, 898), "leggings": (969, 743, 527),
    "motherboards": (989, 736, 826), "rifle_scopes": (979, 714, 978), "rollerball_pens": (967, 760, 603),
}  # fmt: skip
MEDMCQA = {"train": 182_822, "test": 4_183}
"""Questions of the official training and labelled dev files (Pal et al., 2022); AGILE is evaluated on the latter."""
HOTPOTQA = {"train": 90_447, "test": 7_405}
"""Questions of the official training and dev files (Yang et al., 2018)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One category or split."""

    name: str
    counts: Mapping[str, int]  # by what is counted
    published: Mapping[str, int]  # likewise, as far as it is published


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What a folder holds."""

    parts: Sequence[Part]
    broken: Sequence[str]  # what is wrong with each row that can't be used


def contents(environment: str, folder: Path) -> Contents:
    """Read all files of an environment.

    Raises:
        ConfigError: the environment reads no files, or the folder lacks one.
    """
    if environment == "productqa":
        return _productqa(folder)
    if environment == "medmcqa":
        files = medmcqa.read(folder, skip_bad=True)
        counts = {
            split: {
                "questions": len(read.rows),
                **Counter(row.choice_type for row in read.rows),
                "with explanation": sum(bool(row.exp) for row in read.rows),
            }
            for split, read in files.items()
        }
        return Contents(parts=_splits(counts, MEDMCQA), broken=[one for read in files.values() for one in read.broken])
    if environment == "hotpotqa":
        files = hotpotqa.read(folder, skip_bad=True)
        counts = {
            split: {
                "questions": len(read.rows),
                **Counter(row.type for row in read.rows),
                "yes or no": sum(row.answer in ("yes", "no") for row in read.rows),
            }
            for split, read in files.items()
        }
        return Contents(parts=_splits(counts, HOTPOTQA), broken=[one for read in files.values() for one in read.broken])
    raise ConfigError(f"data: one of productqa, medmcqa, hotpotqa reads files; found {environment}")


def _splits(counts: Mapping[str, Mapping[str, int]], published: Mapping[str, int]) -> list[Part]:
    return [
        Part(name=split, counts=found, published={"questions": published[split]} if split in published else {})
        for split, found in counts.items()
    ]


def _productqa(folder: Path) -> Contents:
    folder, database = open_folder(folder)
    parts: list[Part] = []
    broken: list[str] = []
    for name, path in known_categories(folder).items():
        category = Category(folder=path, skip_bad=True)
        tool = SqlTool(database, table=name, id_column="asin")
        lacking = dict(lacking_gold(category, tool))
        broken += [*category.read.broken, *lacking.values()]
        usable = [one for one in category.questions if one.id not in lacking]
        kinds = Counter(one.kind for one in usable)
        queries = [gold_query(one, table=name, tool=tool) for one in usable if one.kind == SEARCH]
        counts = {kind: kinds[kind] for kind in (FACT, SEARCH, REASONING)} | {
            "questions": len(usable),
            "short SQL": sum("LIMIT 1" in query for query in queries),
            "long SQL": sum(bool(query) and "LIMIT 1" not in query for query in queries),
        }
        known = PRODUCTQA.get(name)
        published: dict[str, int] = {} if known is None else dict(zip((FACT, SEARCH, REASONING), known, strict=True))
        parts.append(Part(name=f"{path.parent.name}/{name}", counts=counts, published=published))
        tool.close()
    if not parts:
        raise ConfigError(f"env.data: {folder} holds no category with qa.jsonl and a table in {DATABASE}")
    return Contents(parts=parts, broken=broken)


def show(found: Contents, console: Console) -> None:
    """Print the counts, each with the published one where they differ, and the broken rows."""
    columns = list(dict.fromkeys(column for part in found.parts for column in part.counts))
    table = Table(box=None, padding=(0, 1), pad_edge=False)
    table.add_column("", no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("published", no_wrap=True)
    for part in found.parts:
        table.add_row(part.name, *(str(part.counts.get(column, "")) for column in columns), _beside(part))
    console.print(table)
    if found.broken:
        console.print(f"{len(found.broken)} broken rows, which env.skip_bad=true leaves out:")
    for problem in found.broken[:SHOWN_BROKEN]:
        console.print(f"  {problem}")
    if len(found.broken) > SHOWN_BROKEN:
        console.print(f"  and {len(found.broken) - SHOWN_BROKEN} more")


def _beside(part: Part) -> str:
    if not part.published:
        return "-"
    differing = {name: count for name, count in part.published.items() if part.counts[name] != count}
    return "the same" if not differing else ", ".join(f"{count:,} {name}" for name, count in differing.items())
