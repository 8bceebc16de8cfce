"""The words that prompted policies are given, in this project's own words (AGILE, section 5, describes the paper's)."""

from collections.abc import Collection

from agile_ray.agent.functions import ASKS, SEARCHES, Function

VERSION = 2
"""Raise it with every change of a word: results of different versions are not comparable."""

QUESTION = """\
You answer questions of customers. Below is what is known, and the question.
Reply with the short answer alone, in lower case and without a full stop: yes, no, the letter of an option, or \
the few words that were asked for.
If several products are asked for, give their product ids, separated by spaces."""

AGENT = """\
You are an agent that answers questions of customers, one after the other. You see a transcript. You reply with the \
next function call and nothing else. The program runs the call, and shows you the transcript again.

Scoring: a right answer earns 1, a wrong one 0.{price}

Functions:
{functions}

How to go on:
{ways}

Answers are short, in lower case and without a full stop: yes, no, the letter of an option, or the few words that \
were asked for."""

COLLEAGUE_PRICE = " Each call of [AskColleague] costs {price:g}."
PRICE = " Each call of [SeekAdvice] costs {price:g}, whatever you answer afterwards."

FUNCTIONS = {
    Function.SEEK_ADVICE: "[SeekAdvice]: an expert tells you the answer. Use it if you are not sure enough to be worth "
    "the price; what you store from it helps with later questions.",
    Function.ASK_COLLEAGUE: "[AskColleague]: another expert, at another price, tells you the answer.",
    Function.SEARCH_PRODUCT: "[SearchProduct] QUERY: runs QUERY, one line of SQL (SELECT product_id FROM table WHERE "
    "...), on the table that the transcript names, and finds products. The rows are your answer.",
    Function.SEARCH: "[Search] QUERY: looks QUERY up and shows what it finds.",
    Function.CALL_TOOL: "[CallTool] NAME JSON: calls the tool NAME with arguments in one line of JSON, such as "
    '[CallTool] find {"text": "lamp"}. The transcript lists the tools.',
    Function.REFLECTION: "[Reflection] TEXT: TEXT is one general sentence that you learned from the advice and that "
    "helps with other questions; write `no information` if there is none.",
    Function.UPDATE_MEMORY: "[UpdateMemory]: stores the advice and the reflection.",
    Function.PREDICT_ANSWER: "[PredictAnswer] ANSWER: ANSWER is what you submit.",
    Function.SUBMIT_ANSWER: "[SubmitAnswer]: submits the latest prediction, advice or rows.",
}
"""What each function does, in the order of the prompt."""
IN_WORDS = " Write WORDS after it, one line that says what you want to know."
"""What is added to a function that asks in words."""

WAYS = (
    ((), "- If you know the answer, or the transcript says it: [PredictAnswer] ANSWER [SubmitAnswer]"),
    ((Function.SEEK_ADVICE,), "- If you are not sure: [SeekAdvice]"),
    ((Function.ASK_COLLEAGUE,), "- If another expert will do: [AskColleague]"),
    (
        (Function.SEEK_ADVICE, Function.REFLECTION, Function.UPDATE_MEMORY),
        "- After advice: [Reflection] TEXT [UpdateMemory] [SubmitAnswer]",
    ),
    ((Function.SEARCH_PRODUCT,), "- If products are asked for: [SearchProduct] QUERY"),
    ((Function.SEARCH,), "- If something must be looked up: [Search] QUERY, which is no answer yet"),
    ((Function.CALL_TOOL,), "- If a tool helps: [CallTool] NAME JSON, which is no answer yet"),
    ((Function.SEARCH_PRODUCT,), "- After rows that are what was asked for: [SubmitAnswer]"),
    ((Function.SEEK_ADVICE,), "- After advice of which nothing is to be stored: [SubmitAnswer]"),
)
"""What to write when, and the functions that each line needs."""


def agent_prompt(
    *,
    price: int,
    search_function: Function,
    barred: Collection[Function],
    colleague: int | None = None,
    worded: Collection[Function] = (),
) -> str:
    """The instructions of the agent: what the functions do, what a right answer earns, and what advice costs.

    Args:
        price: of one ask, thousandths.
        search_function: how the environment's tool is called.
        barred: functions that the agent may not use.
        colleague: price of one ask of the second expert, thousandths; None: there is none, or it is barred.
        worded: functions that ask in words.
    """
    hidden = {*SEARCHES - {search_function}, *barred}
    if colleague is None:
        hidden.add(Function.ASK_COLLEAGUE)
    functions = (_told(function, worded) for function in FUNCTIONS if function not in hidden)
    told = "" if Function.SEEK_ADVICE in hidden else PRICE.format(price=price / 1000)
    return AGENT.format(
        price=told + ("" if colleague is None else COLLEAGUE_PRICE.format(price=colleague / 1000)),
        functions="\n".join(functions),
        ways="\n".join(_way(needed, text, worded) for needed, text in WAYS if hidden.isdisjoint(needed)),
    )


def _told(function: Function, worded: Collection[Function]) -> str:
    text = FUNCTIONS[function]
    return _with_words(function, text) + IN_WORDS if function in worded else text


def _way(needed: Collection[Function], text: str, worded: Collection[Function]) -> str:
    asked = next((function for function in ASKS if function in needed and function in worded), None)
    return text if asked is None else _with_words(asked, text)


def _with_words(function: Function, text: str) -> str:
    return text.replace(function.value, f"{function.value} WORDS")
