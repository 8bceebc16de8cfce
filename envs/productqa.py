"""ProductQA (AGILE, section 3): real questions about products, category by category, with gold answers and SQL.

A stream is a category: its questions in file order, its table as the tool, its gold answers as the expert. Index i of a
split is category i. Training continues past the last category with further rounds, in which each stream starts at
another offset and wraps around, so that many lanes on few categories don't play the same questions at the same time.

    [GetQuestion]      products : price dollar | brand : Bialetti, Lodge | size inch      the table
                       Bialetti 6168 ... ; price 21.44 ; brand Bialetti ; ... ; Shape round    the page's product
                       question : is it safe for acidic food ?
    [SearchProduct]    SELECT product_id FROM products WHERE price < 30 LIMIT 1
                       rows : B00006JSUE
    [SeekAdvice]       advice : no . When you're thinking about using ...                 short, then long answer
    [PredictAnswer]    no                                                                 judged word for word
    [Reflection]       no . acid strips the seasoning of cast iron                        short answer, then the rule
"""

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from agile_ray.agent.environment import Found, Question, Submission
from agile_ray.agent.functions import Function
from agile_ray.config import Env
from agile_ray.errors import ConfigError
from agile_ray.seeds import derive
from agile_ray.types import Origin, Session
from envs.predictions import PredictionRow, prediction_row
from envs.productqa_files import (
    DATABASE,
    FACT,
    REASONING,
    SEARCH,
    AnnotatedQuestion,
    Category,
    known_categories,
    open_folder,
)
from envs.productqa_items import items
from envs.productqa_text import answers, columns_shown, gold_query, product_shown, wrong_query
from envs.rows import clean, commonest, normalised, short
from envs.splits import TRAINING, check_apart, round_offset
from envs.sql import SqlTool

LONG_ANSWER_WORDS = 24  # of the expert's long answer that the policy reads (95 % have at most 53)
KNOWLEDGE_WORDS = 30  # of an answer and an annotated piece of knowledge (mean 33) that the policy reads
SHOWN_ROWS = 2  # product ids of a query's result that the policy reads, 8 tokens each
TEXTS = 4_000  # questions whose texts train a tokenizer, about 4 MB
UNKNOWN_GUESS = ("yes", 0.5)  # without training files, the most common answer is unknown


@dataclass(frozen=True, slots=True, kw_only=True)
class _Loaded:
    """A category in memory, to be played from any offset."""

    questions: tuple[Question, ...]  # in file order
    annotated: Mapping[str, AnnotatedQuestion]  # by id
    gold: Mapping[str, frozenset[str]]  # id of a search question -> products that answer it
    names: "_ProductNames"
    tool: SqlTool


class _ProductNames:
    """Finds products in a text by their ids and by their titles, in the metadata and in gold answers.

    A name is found as whole words: 12 is neither in 120 nor in 1.12 nor in 12-inch. A name within a longer one that is
    found is not found itself: who says `wok lid` does not say `wok`.
    """

    def __init__(self, category: Category) -> None:
        titled = {(asin, features.get("title") or "") for asin, features in category.products.items()}
        titled |= {(hit.asin, hit.title) for annotated in category.questions for hit in annotated.hits}
        self._products: dict[str, set[str]] = {}  # by name, normalised; products may share a title
        for asin, title in titled:
            for name in {normalised(asin), normalised(clean(title))} - {""}:
                self._products.setdefault(name, set()).add(asin)
        longest_first = sorted(self._products, key=lambda name: (-len(name), name))
        names = "|".join(map(re.escape, longest_first)) or "(?!)"
        self._pattern = re.compile(rf"(?<!\w)(?<!\w-)(?:(?=\D)|(?<!\d\.))(?:{names})(?!\w|-\w)(?:(?<=\D)|(?!\.\d))")

    def within(self, text: str) -> set[str]:
        """The products that a text names."""
        found = self._pattern.findall(normalised(clean(text)))
        return {product for name in found for product in self._products[name]}


class CategoryStream:
    """The questions of one category, starting at an offset and wrapping around."""

    def __init__(self, loaded: _Loaded, *, id: str, offset: int) -> None:
        self.id = id
        self.questions: Sequence[Question] = (*loaded.questions[offset:], *loaded.questions[:offset])
        self._loaded = loaded

    def search(self, query: str) -> Found:
        """Run SQL on the category's table; a wrong query returns an error text.

        Raises:
            ToolError: the database is broken or gone.
        """
        return self._loaded.tool.search(query)

    def judge(self, question: Question, submission: Submission) -> bool:
        """Judge by AGILE's rules.

        A short answer must equal the gold one, ignoring case and spaces. Rows must be some of the gold rows, and may be
        empty only if there are no gold rows. A text that answers a search question must name a gold product and no
        other one. The expert's text is right if it is the gold answer.
        """
        if submission.advised and submission.text == question.answer:
            return True
        if question.kind != SEARCH:
            return submission.rows is None and normalised(clean(submission.text)) == normalised(question.answer)
        gold = self._loaded.gold[question.id]
        if submission.rows is not None:
            return answers(submission.rows, gold)
        named = self._loaded.names.within(submission.text)
        return bool(named) and named <= gold


class ProductQA:
    """The environment on the released files."""

    search_function = Function.SEARCH_PRODUCT

    def __init__(
        self,
        folder: Path | None,
        *,
        train: Sequence[str] | None = None,
        validation: Sequence[str] | None = None,
        test: Sequence[str] | None = None,
        imitation: Sequence[str] | None = None,
        values: bool = True,
        skip_bad: bool = False,
        tool_s: float = 2.0,
    ) -> None:
        """Set the categories of each split. A split is checked, and its files are read, at its first use.

        Args:
            train: default: all under train/ that no other split names.
            validation: default: none.
            test: default: all under test/.
            imitation: default: imitation plays those of `train`.
            values: whether questions show the values of the table's columns, beside their names.
            skip_bad: leave out broken questions.
            tool_s: deadline of one query.

        Raises:
            ConfigError: the folder is not the ProductQA data; the message says what to download. Or two splits share a
                category.
        """
        self._folder, self._database = open_folder(folder)
        known = known_categories(self._folder).items()
        self._known = {name: Category(folder=path, skip_bad=skip_bad) for name, path in known}
        held_out = {*(imitation or ()), *(validation or ()), *(test or ())}
        readable = tuple(name for name in self._under("train") if name not in held_out)
        self._splits: dict[str, tuple[str, ...]] = {
            "train": readable if train is None else tuple(train),
            "validation": tuple(validation or ()),
            "test": self._under("test") if test is None else tuple(test),
        }
        if imitation is not None:
            self._splits["imitation"] = tuple(imitation)
        check_apart(self._splits.items())
        self.taught_split = "train" if imitation is None else "imitation"
        self._values = values
        self._skip_bad = skip_bad
        self._tool_s = tool_s
        self._lacking: dict[str, tuple[str, ...]] = {}  # category -> questions left out whose gold the table lacks
        self._loaded = lru_cache(maxsize=None)(self._load)
        self._guesses = lru_cache(maxsize=None)(self._count_guesses)

    def _under(self, side: str) -> tuple[str, ...]:
        return tuple(name for name, category in self._known.items() if category.folder.parent.name == side)

    def streams(self, split: str) -> int:
        """Number of categories of a split.

        Raises:
            ConfigError: no such split, or it names a category that does not exist.
        """
        return len(self._categories(split))

    def stream(self, *, split: str, index: int) -> CategoryStream:
        """Category `index` of a split. In training, indices beyond the last category start further rounds.

        Raises:
            ConfigError: no such split, no such category in it, or its files are broken.
        """
        categories = self._categories(split)
        if index < 0 or (index >= len(categories) and split not in TRAINING):
            raise ConfigError(f"productqa: the {split} split has {len(categories)} streams, asked for number {index}")
        name = categories[index % len(categories)]
        loaded = self._loaded(name)
        offset = round_offset(index // len(categories), length=len(loaded.questions))
        return CategoryStream(loaded, id=f"productqa/{split}/{name}/{index}", offset=offset)

    @property
    def skipped(self) -> Sequence[str]:
        """What is wrong with the questions that were left out, of the categories that were read so far."""
        broken = [problem for name in self._lacking for problem in self._known[name].read.broken]
        return (*broken, *(problem for problems in self._lacking.values() for problem in problems))

    def predictions(self, sessions: Sequence[Session]) -> dict[str, list[PredictionRow]]:
        """Category -> its questions in file order up to the last one that was played, as data/eval.py reads them."""
        played = {(_category(session), session.question_id): session for session in sessions}
        exported: dict[str, list[PredictionRow]] = {}
        for name in dict.fromkeys(name for name, _ in played):
            loaded = self._loaded(name)
            rows = [
                _prediction_row(annotated, played.get((name, id)), loaded) for id, annotated in loaded.annotated.items()
            ]
            last = max(place for place, id in enumerate(loaded.annotated) if (name, id) in played)
            exported[name] = rows[: last + 1]
        return exported

    def texts(self) -> Sequence[str]:
        """What the agent reads and writes on a sample of questions, the same sample in every call.

        The sample covers the categories of imitation and of the training split, and no others.
        """
        return list(self._texts())

    def _texts(self) -> Iterator[str]:
        questions = [question for name in self._trained() for question in self._loaded(name).questions]
        questions.sort(key=lambda question: derive(0, question.product, question.id))
        for question in questions[:TEXTS]:
            yield f"progress 10 questions 2 knowledge 3\n{question.shown}\n"
            yield f"history : {question.text} {question.advice}\nknowledge : {question.knowledge or 'none'}\n"
            yield f"advice : {question.advice}\n"
            yield f" {question.query}\nrows : {question.answer}\n" if question.query else f" {question.answer}"
        yield "error : no such column: Material\nerror : the question is shown above\nrows : none\nand 7 more\n"

    def _categories(self, split: str) -> tuple[str, ...]:
        if split not in self._splits:
            raise ConfigError(f"productqa: no split {split!r}; there are {', '.join(self._splits)}")
        names, key = self._splits[split], f"env.categories.{split}"
        if not names or len(set(names)) < len(names):
            raise ConfigError(f"{key}: there must be at least one category, and none twice; found {list(names)}")
        for name in names:
            if name not in self._known:
                near = difflib.get_close_matches(name, self._known, n=3, cutoff=0)
                raise ConfigError(
                    f"{key}: no category {name!r} in {self._folder}; the nearest known ones are {', '.join(near)}"
                )
        return names

    def _trained(self) -> tuple[str, ...]:
        """The categories of imitation and PPO."""
        return tuple(dict.fromkeys((*self._categories(self.taught_split), *self._categories("train"))))

    def _load(self, name: str) -> _Loaded:
        category = self._known[name]
        tool = SqlTool(self._database, table=name, id_column="asin", deadline_s=self._tool_s, shown_rows=SHOWN_ROWS)
        lacking = dict(lacking_gold(category, tool))
        if lacking and not self._skip_bad:
            raise ConfigError(next(iter(lacking.values())))
        self._lacking[name] = tuple(lacking.values())
        usable = [annotated for annotated in category.questions if annotated.id not in lacking]
        facts, columns = _facts(usable), columns_shown(category, tool, values=self._values)
        products = {asin: product_shown(asin, category) for asin in {annotated.asin for annotated in usable}}
        return _Loaded(
            questions=tuple(
                _question(
                    annotated,
                    category=category,
                    tool=tool,
                    columns=columns,
                    product=products[annotated.asin],
                    guess=self._guesses()[annotated.kind],
                    fact=facts.get(annotated.id, ""),
                )
                for annotated in usable
            ),
            annotated={annotated.id: annotated for annotated in usable},
            gold={
                annotated.id: frozenset(hit.asin for hit in annotated.hits)
                for annotated in usable
                if annotated.kind == SEARCH
            },
            names=_ProductNames(category),
            tool=tool,
        )

    def _count_guesses(self) -> dict[str, tuple[str, float]]:
        """Kind -> most common short answer and its share in the training files; test files are not read."""
        named = {*self._splits["train"], *self._splits.get("imitation", ())}
        trained = [self._known[name] for name in self._under("train") if name in named]
        known = commonest(
            (annotated.kind, normalised(clean(annotated.short_answer)))
            for category in trained
            for annotated in category.questions
            if isinstance(annotated.short_answer, str)
        )
        return {kind: known.get(kind, UNKNOWN_GUESS) for kind in (FACT, REASONING)} | {SEARCH: ("yes", 0.0)}


def build(env: Env, *, seed: int) -> ProductQA:
    """Build from the config. The questions and their order come from the files and do not depend on the seed.

    Raises:
        ConfigError: no such folder or category.
    """
    del seed
    return ProductQA(
        env.data,
        train=env.categories.get("train"),
        validation=env.categories.get("validation"),
        test=env.categories.get("test"),
        imitation=env.categories.get("imitation"),
        values=env.columns == "values",
        skip_bad=env.skip_bad,
        tool_s=env.tool_s,
    )


def _category(session: Session) -> str:
    """The category that a session was played in, by the id of its stream."""
    return session.stream.split("/")[2]


def _prediction_row(annotated: AnnotatedQuestion, session: Session | None, loaded: _Loaded) -> PredictionRow:
    return prediction_row(
        annotated.id,
        session,
        question=annotated.question,
        kind=annotated.type,
        short_answer=None if session is None else _prediction(annotated, session, loaded),
    )


def _prediction(annotated: AnnotatedQuestion, session: Session, loaded: _Loaded) -> str | list[str] | None:
    """What was submitted, in the form in which data/eval.py judges it as the session was judged.

    A right answer is spelt as in the file, which may hold HTML entities that the policy does not read.
    """
    if session.answer is None:
        return None
    if session.correct and isinstance(annotated.short_answer, str):
        return annotated.short_answer
    if session.origin is Origin.ROWS:
        return session.answer.split()
    if session.origin is Origin.ADVICE and session.correct:
        return [hit.asin for hit in annotated.hits]
    named = loaded.names.within(session.answer) if annotated.kind == SEARCH else ()
    return sorted(named) or session.answer


def _facts(questions: Sequence[AnnotatedQuestion]) -> dict[str, str]:
    """Question id -> the fact that it asks for."""
    asked = [annotated for annotated in questions if annotated.kind == FACT]
    names = items([(one.asin, normalised(clean(one.question)), normalised(_answer(one))) for one in asked])
    return {one.id: name for one, name in zip(asked, names, strict=True)}


def _question(
    annotated: AnnotatedQuestion,
    *,
    category: Category,
    tool: SqlTool,
    columns: str,
    product: str,
    guess: tuple[str, float],
    fact: str,
) -> Question:
    text = clean(annotated.question)
    extra = annotated.extra_data
    rule = clean(extra.knowledge or "") if extra and annotated.kind == REASONING else ""
    answer = _answer(annotated)
    item_by_kind = {
        FACT: fact,
        REASONING: rule or f"{annotated.asin}/{normalised(text)}",
        SEARCH: f"{SEARCH}/{annotated.id}",
    }
    query = gold_query(annotated, table=category.name, tool=tool) if annotated.kind == SEARCH else ""
    stated = answer if annotated.kind != SEARCH else " ".join(answer.split()[:SHOWN_ROWS])
    return Question(
        id=annotated.id,
        product=annotated.asin,
        kind=annotated.kind,
        topic=annotated.kind,
        text=text,
        shown=f"{columns}\n{product}\nquestion : {text}",
        item=item_by_kind[annotated.kind],
        answer=answer,
        advice=f"{stated} . {short(annotated.long_answer, LONG_ANSWER_WORDS)}",
        # What a rule says of this product comes first: a later question that is like this one mostly has its answer.
        knowledge=short(f"{answer} . {rule}", KNOWLEDGE_WORDS) if rule else "",
        query=query,
        guess=guess[0],
        guess_probability=guess[1],
        query_shown=f"{columns}\nquestion : {text}" if query else "",
        wrong_query=wrong_query(query, tool=tool, key=f"{category.name}/{annotated.id}") if query else "",
    )


def lacking_gold(category: Category, tool: SqlTool) -> Iterator[tuple[str, str]]:
    """Id of each question with a gold product that no query can find, and what is wrong with it."""
    for annotated in category.questions:
        for hit in annotated.hits:
            if hit.asin not in tool.ids:
                near = difflib.get_close_matches(hit.asin, tool.ids, n=1, cutoff=0)
                yield (
                    annotated.id,
                    f"{category.folder / 'qa.jsonl'}: question {annotated.id}: a gold product must be in table "
                    f"{category.name} of {DATABASE}, found {hit.asin!r}; the nearest id there is {''.join(near)!r}",
                )


def _answer(annotated: AnnotatedQuestion) -> str:
    if isinstance(annotated.short_answer, str):
        return clean(annotated.short_answer)
    return " ".join(hit.asin for hit in annotated.short_answer) or "none"
