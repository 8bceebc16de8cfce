"""The shop: determinism, splits, what is hidden, gold queries, retrieval, and the economics of asking."""

import math
import re
from collections import Counter, defaultdict
from random import Random

import pytest

from agile_ray.agent.environment import Question, Submission
from agile_ray.agent.memory import HashedEmbedder
from agile_ray.config import Env
from agile_ray.errors import ConfigError
from agile_ray.scripted.optimum import optimum
from envs import ENVIRONMENTS, build, shop_text
from envs.shop import SPLITS, Shop
from envs.shop_world import LENGTH, categories, category

PRICES = range(100, 501, 50)
THRESHOLD = 0.72  # memory.threshold that fits the hashed embedder here

SHOP = Shop(seed=0)
STREAMS = {split: [SHOP.stream(split=split, index=index) for index in range(150)] for split in ("train", "validation")}
QUESTIONS = {split: [stream.questions for stream in streams] for split, streams in STREAMS.items()}


def words(*texts: str) -> set[str]:
    """Words as a tokenizer cuts them: letters, single digits, signs."""
    return {piece for text in texts for piece in re.findall(r"[a-zA-Z]+|\d|[^\sa-zA-Z\d]", text)}


def read_and_written(question: Question) -> tuple[str, ...]:
    return question.shown, question.text, question.advice, question.answer, question.knowledge, question.query


def test_a_stream_is_determined_by_seed_split_and_index():
    one, two = (Shop(seed=3).stream(split="train", index=7) for _ in range(2))
    assert one.id == two.id
    assert one.questions == two.questions
    others = [
        Shop(seed=4).stream(split="train", index=7),
        Shop(seed=3).stream(split="train", index=8),
        Shop(seed=3).stream(split="validation", index=7),
    ]
    assert len({stream.id for stream in (one, *others)}) == 4
    assert all(stream.questions != one.questions for stream in others)


def test_a_stream_does_not_depend_on_what_was_drawn_before_it():
    fresh = Shop(seed=0).stream(split="train", index=100)
    assert fresh.questions == STREAMS["train"][100].questions


def test_categories_of_the_splits_are_disjoint_and_share_all_their_words():
    names = {split: {one.name for one in categories(split)} for split in SPLITS}
    assert [len(names[split]) for split in SPLITS] == [320, 40, 40]
    assert len(set.union(*names.values())) == 400
    assert len({frozenset(words(*group)) for group in names.values()}) == 1


def test_the_columns_of_a_category_are_determined_by_its_name():
    assert category("trail_lamp") == category("trail_lamp")
    assert len({(one.columns, one.measure) for one in categories("train")}) > 100


def test_every_word_of_validation_and_test_occurs_in_the_training_texts():
    known = words(*SHOP.texts())
    assert len(known) < 1000
    for split in ("validation", "test"):
        for index in range(50):
            for question in SHOP.stream(split=split, index=index).questions:
                assert words(*read_and_written(question)) <= known


def test_what_the_policy_reads_is_lower_case():
    for questions in QUESTIONS["train"]:
        assert all(question.shown == question.shown.lower() for question in questions)


def test_the_question_shows_its_table_product_and_text_and_words_to_copy_follow_a_space():
    for questions in QUESTIONS["train"]:
        for question in questions:
            page, text = question.shown.split("\n")
            assert text == question.text
            assert f" product_id {question.product} " in page
            assert not question.query or f" {question.query.split()[3]} " in page
            for word in question.knowledge.split(" : ")[0].split():
                assert f" {word} " in text


def test_equal_items_have_equal_answers_and_one_product_unless_they_are_knowledge():
    for questions in QUESTIONS["train"]:
        by_item = defaultdict(list)
        for question in questions:
            by_item[question.item].append(question)
        for same in by_item.values():
            assert len({(question.answer, question.knowledge, question.guess_probability) for question in same}) == 1
            assert same[0].knowledge or len({question.product for question in same}) == 1


def test_hidden_answers_are_drawn_anew_for_every_episode():
    answers = defaultdict(set)
    for questions in QUESTIONS["train"]:
        for question in questions:
            answers[question.item].add(question.answer)
    assert sum(len(found) > 1 for found in answers.values()) > 100


def test_a_rule_holds_for_all_products_with_its_value_and_recurs_on_several():
    products = defaultdict(set)
    for index, questions in enumerate(QUESTIONS["train"]):
        for question in questions:
            if question.kind == "reasoning":
                value = question.item.split()[0]
                assert f" {value}" in question.shown.split("\n")[0]
                products[index, question.item].add(question.product)
    assert sum(len(found) > 1 for found in products.values()) > len(products) / 4


def test_a_guess_is_right_with_its_stated_probability():
    right = defaultdict(list)
    for index in range(600):
        seen = {q.item: q for q in SHOP.stream(split="train", index=index).questions if not q.query}
        for question in seen.values():
            right[question.item.split()[-1]].append((question.guess == question.answer, question.guess_probability))
    assert set(right) == {topic.word for topic in (*shop_text.ASPECTS, *shop_text.USES)}
    for outcomes in right.values():
        chance = outcomes[0][1]
        share = sum(outcome for outcome, _ in outcomes) / len(outcomes)
        assert abs(share - chance) < 4 * math.sqrt(chance * (1 - chance) / len(outcomes))


def test_the_answers_of_facts_and_rules_were_drawn_and_those_of_searches_were_not():
    questions = SHOP.stream(split="train", index=0).questions
    assert {(question.kind, question.guess_drawn) for question in questions} == {
        ("fact", True),
        ("reasoning", True),
        ("search", False),
    }


def test_guess_probabilities_span_the_range_and_none_is_close_to_a_price():
    topics = (*shop_text.ASPECTS, *shop_text.USES)
    chances = {topic.guess_probability for topic in topics}
    assert min(chances) == 0.1
    assert max(chances) >= 0.9
    for topic in topics:
        assert topic.guess_probability == max(topic.weights)
        assert sum(topic.weights) == pytest.approx(1.0)
        for price in (0.15, 0.3, 0.5, 0.05, 0.2, 0.4):  # the prices, then the prices less AGILE's bonus
            assert abs(1 - topic.guess_probability - price) > 0.04


def test_gold_queries_return_exactly_the_gold_rows_which_are_one_to_five():
    for stream in STREAMS["validation"][:50]:
        for question in stream.questions:
            if question.query:
                found = stream.search(question.query)
                assert not found.bad_query
                assert " ".join(found.rows) == question.answer
                assert 1 <= len(found.rows) <= 5


def test_a_question_contains_every_word_that_its_query_needs():
    for questions in QUESTIONS["validation"]:
        for question in questions:
            if question.query:
                _, conditions = question.query.split(" WHERE ")
                for condition in conditions.split(" AND "):
                    column, operator, value = condition.split()
                    said = {"=": f"{column} {value}", "<": f"{column} below {value}", ">": f"{column} above {value}"}
                    assert said[operator] in question.text


def test_a_wrong_query_returns_an_error_text():
    found = STREAMS["train"][0].search("SELECT product_id FROM nowhere")
    assert found.bad_query
    assert found.text


def test_the_judge_requires_the_exact_answer_or_some_of_the_gold_rows():
    stream = STREAMS["train"][0]
    fact = next(question for question in stream.questions if question.kind == "fact")
    search = next(question for question in stream.questions if " " in question.answer)
    gold = tuple(search.answer.split())
    said = [(fact, f" {fact.answer.upper()} ", True), (fact, f"{fact.answer} indeed", False), (fact, "", False)]
    said += [
        (search, search.answer, True),
        (search, gold[0], True),
        (search, f"{gold[0]} p0", False),
        (search, "", False),
    ]
    for question, text, right in said:
        assert stream.judge(question, Submission(text=text, rows=None)) is right
    for rows, right in ((gold, True), (gold[:1], True), ((*gold, "p0"), False), ((), False)):
        assert stream.judge(search, Submission(text="", rows=rows)) is right


def test_kinds_mix_and_items_recur():
    kinds = Counter(question.kind for questions in QUESTIONS["train"] for question in questions)
    assert all(kinds[kind] > 0.2 * kinds.total() for kind in ("fact", "reasoning", "search"))
    for questions in QUESTIONS["train"]:
        assert len(questions) == LENGTH
        assert len({question.id for question in questions}) == LENGTH
    recurring = [q for questions in QUESTIONS["train"] for q in questions if not q.query]
    distinct = sum(len({q.item for q in questions if not q.query}) for questions in QUESTIONS["train"])
    assert 1.5 < len(recurring) / distinct < 2.5


def test_retrieval_finds_the_entry_on_the_item_and_the_threshold_separates_items():
    """With all earlier sessions in memory, the best entry of one of the two kinds is about the question's item."""
    embedder = HashedEmbedder()
    stored = missed = blurred = strangers = counted = 0
    for questions in [*QUESTIONS["train"], *QUESTIONS["validation"]]:
        texts = embedder.embed([question.text for question in questions])
        for now, question in enumerate(questions):
            if question.query:
                continue
            pairs = [then for then in range(now) if questions[then].product == question.product]
            taught = [then for then in range(now) if questions[then].knowledge]
            found = (
                [(float(texts[now] @ texts[then]), then) for then in pairs],
                [(float(texts[now] @ texts[then]), then) for then in taught],
            )
            same = [[cosine for cosine, then in kind if questions[then].item == question.item] for kind in found]
            if same[0] or same[1]:
                stored += 1
                missed += not any(kind and questions[max(kind)[1]].item == question.item for kind in found)
                blurred += max(same[0] + same[1]) <= THRESHOLD
            others = [cosine for kind in found for cosine, then in kind if questions[then].item != question.item]
            strangers += sum(cosine > THRESHOLD for cosine in others)
            counted += len(others)
    assert stored > 4000
    assert missed == 0
    assert blurred < 0.005 * stored
    assert strangers < 0.005 * counted


def test_the_optimal_asked_share_falls_as_the_price_rises():
    for split in ("train", "validation"):
        shares = [optimum(QUESTIONS[split], price=price).asked_share for price in PRICES]
        assert all(high > low for high, low in zip(shares, shares[1:], strict=False))


def expected_total(questions: tuple[Question, ...], asks: list[bool], price: int) -> float:
    known: set[str] = set()
    total = 0.0
    for question, ask in zip(questions, asks, strict=True):
        free = bool(question.query) or question.item in known
        total += 1 - price / 1000 if ask else 1.0 if free else question.guess_probability
        known |= {question.item} if ask else set()
    return total


def myopic(questions: tuple[Question, ...], price: int) -> list[bool]:
    known: set[str] = set()
    asks = []
    for question in questions:
        ask = not question.query and question.item not in known and 1000 * (1 - question.guess_probability) > price
        asks.append(ask)
        known |= {question.item} if ask else set()
    return asks


@pytest.mark.parametrize("price", [150, 300, 500])
@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_myopic_asker_is_near_the_optimum_which_asks_more_often(split: str, price: int):
    streams = QUESTIONS[split]
    sessions = sum(map(len, streams))
    choices = [myopic(questions, price) for questions in streams]
    share = sum(map(sum, choices)) / sessions
    random = Random(0)
    blind = {  # the reference policies that do not know the future
        "never": [[False] * LENGTH for _ in streams],
        "always": [[True] * LENGTH for _ in streams],
        "random": [[random.random() < share for _ in range(LENGTH)] for _ in streams],
        "unless_search": [[not question.query for question in questions] for questions in streams],
        **{f"first {k}": [[position < k for position in range(LENGTH)] for _ in streams] for k in range(LENGTH)},
    }
    best = max(
        sum(expected_total(q, a, price) for q, a in zip(streams, asks, strict=True)) / sessions
        for asks in blind.values()
    )
    total = sum(expected_total(q, a, price) for q, a in zip(streams, choices, strict=True)) / sessions
    ideal = optimum(streams, price=price)
    assert best < total < ideal.total
    assert (total - best) / (ideal.total - best) >= 0.8
    assert ideal.asked_share > share + 0.02


def test_the_registry_builds_by_name_and_lists_the_known_names():
    assert isinstance(build(Env(name="shop"), seed=0), Shop)
    with pytest.raises(ConfigError, match=r"env\.name: one of .*shop.*found shpo"):
        build(Env(name="shpo"), seed=0)
    assert "shop" in ENVIRONMENTS


def test_the_shop_refuses_files_categories_and_unknown_splits():
    with pytest.raises(ConfigError, match=r"env\.categories"):
        build(Env(name="shop", categories={"train": ("trail_lamp",)}), seed=0)
    with pytest.raises(ConfigError, match="train, validation, test"):
        SHOP.stream(split="dev", index=0)
    with pytest.raises(ConfigError, match="train, validation, test"):
        SHOP.streams("dev")
