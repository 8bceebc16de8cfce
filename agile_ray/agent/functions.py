"""The agent's functions, one special token each (AGILE, Table 1 and Appendix B)."""

from enum import StrEnum


class Function(StrEnum):
    """A function token. The policy writes it, the executor runs it."""

    GET_QUESTION = "[GetQuestion]"
    RETRIEVE_MEMORY = "[RetrieveMemory]"
    SEARCH_PRODUCT = "[SearchProduct]"
    SEARCH = "[Search]"
    SEEK_ADVICE = "[SeekAdvice]"
    REFLECTION = "[Reflection]"
    UPDATE_MEMORY = "[UpdateMemory]"
    PREDICT_ANSWER = "[PredictAnswer]"
    SUBMIT_ANSWER = "[SubmitAnswer]"
    CLEAR_CONTEXT = "[ClearContext]"
    CALL_TOOL = "[CallTool]"  # of tasks with tools of their own: a name and arguments in JSON
    ASK_COLLEAGUE = "[AskColleague]"  # of runs with a second expert


NO_INFORMATION = "no information"
"""A reflection that contains these words is not written to memory."""

PAPER = tuple(function for function in Function if function not in (Function.CALL_TOOL, Function.ASK_COLLEAGUE))
"""The functions that every model has."""

SEARCHES = frozenset({Function.SEARCH_PRODUCT, Function.SEARCH, Function.CALL_TOOL})
"""Functions whose argument the policy writes after the token, up to the end token. So are those of `ASKS` if asks carry
words."""

ASKS = {Function.SEEK_ADVICE: "", Function.ASK_COLLEAGUE: "colleague"}
"""Functions that ask an expert, and whom, as `AskKey.to` names it."""

STOPS = frozenset({*ASKS, Function.GET_QUESTION, Function.RETRIEVE_MEMORY, Function.CLEAR_CONTEXT})
"""Functions after which the executor appends an observation or ends the session, so the engine stops.

The other functions append nothing when they are in order, so the policy continues in the same engine call. When one of
them is out of order, the executor cuts the call off after it: what follows was written without seeing the reply. An ask
that carries words does not stop the engine: the end token after its words does.
"""
