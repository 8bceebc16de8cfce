"""The paper's results on ProductQA, as the paper reports them, over its six test categories.

Source: AGILE (arXiv 2405.14751, version 2), Table 4, Table 5 and Table 16. Accuracy is that of short answers. The
totals of Table 16 are not in the paper: accuracy - c * advice rate.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """One line of a table of the paper."""

    name: str
    asked_share: float | None  # None: the method can't ask
    accuracy: float
    total: float | None


TABLE_4 = (
    Published(name="gpt3.5-prompt", asked_share=None, accuracy=0.202, total=None),
    Published(name="gpt4-prompt", asked_share=None, accuracy=0.464, total=None),
    Published(name="agile-vic13b-prompt", asked_share=0.174, accuracy=0.174, total=0.122),
    Published(name="agile-gpt3.5-prompt", asked_share=0.323, accuracy=0.508, total=0.411),
    Published(name="agile-gpt4-prompt", asked_share=0.208, accuracy=0.780, total=0.718),
    Published(name="agile-vic7b-ppo", asked_share=0.179, accuracy=0.818, total=0.764),
    Published(name="agile-vic13b-ppo", asked_share=0.233, accuracy=0.854, total=0.784),
)
"""Main results, c = 0.3."""

TABLE_5 = (
    Published(name="w/o Reflection", asked_share=0.270, accuracy=0.852, total=0.771),
    Published(name="w/o Memory", asked_share=0.407, accuracy=0.876, total=0.754),
    Published(name="w/o Advice", asked_share=0.000, accuracy=0.747, total=0.747),
    Published(name="Non-adaptive advice", asked_share=0.233, accuracy=0.812, total=0.742),
    Published(name="w/o Tool-use", asked_share=0.492, accuracy=0.864, total=0.717),
    Published(name="w/o RL", asked_share=0.256, accuracy=0.843, total=0.766),
    Published(name="agile-vic13b-ppo", asked_share=0.233, accuracy=0.854, total=0.784),
)
"""Ablations, c = 0.3."""

TABLE_16 = (
    (0.5, Published(name="agile-vic13b-ppo", asked_share=0.098, accuracy=0.805, total=0.756)),
    (0.4, Published(name="agile-vic13b-ppo", asked_share=0.168, accuracy=0.825, total=0.758)),
    (0.3, Published(name="agile-vic13b-ppo", asked_share=0.233, accuracy=0.854, total=0.784)),
    (0.2, Published(name="agile-vic13b-ppo", asked_share=0.291, accuracy=0.871, total=0.813)),
    (0.1, Published(name="agile-vic13b-ppo", asked_share=0.423, accuracy=0.918, total=0.875)),
)
"""By price of one ask."""
