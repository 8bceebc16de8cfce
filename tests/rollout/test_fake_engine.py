import asyncio

from tests.fakes.engine import FakeEngine
from tests.fakes.engine_contract import check_engine


def test_the_fake_engine_keeps_the_contract_of_engines() -> None:
    asyncio.run(check_engine(FakeEngine(version=3), prompts=[[5, 6], [7, 8, 9]], version=3))
