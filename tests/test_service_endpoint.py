import pytest

from camelbell_core.errors import CamelBellError
from camelbell_core.records import Message
from camelbell_core.service.endpoint import Endpoint, Estimate, count_tokens, told
from camelbell_core.service.ledger import Ledger, Spent
from camelbell_core.service.replies import Reply

ASK = [Message("system", "你是小灯。"), Message("user", "How tall is the lighthouse?")]


def endpoint(**options):
    return Endpoint(base_url="http://127.0.0.1:1/v1", **options)


def test_a_request_holds_all_that_is_sent():
    request = endpoint(model="m", extra={"seed": 7, "max_tokens": None}).request(ASK, "mine", temperature=0.5)
    assert request.context == "mine"
    assert request.body == {
        "model": "m",
        "messages": [{"role": m.role, "content": m.content} for m in ASK],
        "temperature": 0.5,
        "seed": 7,
    }


def test_whatever_is_sent_otherwise_is_another_request():
    plain = endpoint().request(ASK)
    others = [
        endpoint(model="other").request(ASK),
        endpoint(temperature=0.1).request(ASK),
        endpoint(max_tokens=5).request(ASK),
        endpoint(extra={"seed": 1}).request(ASK),
        endpoint().request(ASK[:1]),
        Endpoint(base_url="http://127.0.0.1:2/v1").request(ASK),
    ]
    assert len({plain.key, *(other.key for other in others)}) == 7
    assert endpoint(concurrency=9, retries=1, budget=None).request(ASK).key == plain.key


@pytest.mark.parametrize(
    ("text", "least", "most"),
    [("", 0, 0), ("灯塔有多少级台阶？", 8, 10), ("How tall is the lighthouse?", 6, 10), ("灯塔 lighthouse", 4, 8)],
)
def test_tokens_are_counted_rather_too_many_than_too_few(text, least, most):
    assert least <= count_tokens(text) <= most


def test_budget_and_token_limit_say_why():
    spent = Spent(10, 500_000, 100_000, 0.9)
    priced = endpoint(price_in=1.0, price_out=4.0, budget=1.0)
    assert priced.refusal(spent, 50_000, 10_000) == ""
    assert priced.refusal(spent, 50_000, 20_000) == "the budget of 1.00 is reached: 0.90 is spent"
    limited = endpoint(token_limit=700_000)
    assert limited.refusal(spent, 50_000, 50_000) == ""
    assert limited.refusal(spent, 50_000, 50_001) == "the limit of 700,000 tokens is reached: 600,000 are used"
    assert endpoint().refusal(spent, 10**9, 10**9) == ""


def test_a_budget_without_prices_is_a_mistake():
    with pytest.raises(CamelBellError, match="a budget needs prices"):
        endpoint(budget=5.0, price_in=1.0)


def test_an_estimate_counts_what_is_not_there_yet():
    priced = endpoint(price_in=1.0, price_out=2.0, max_tokens=100)
    requests = [priced.request([Message("user", "字" * 96)], n, seed=n) for n in range(10)]
    with Ledger(None) as ledger:
        assert priced.estimated(requests, ledger, 1000) == Estimate(1000, 100_000, 100_000, pytest.approx(0.3), False)
        for request in requests[:5]:
            ledger.put(request.key, Reply("好", "stop", 100, 40), 0.1)
        assert priced.estimated(requests, ledger, 1000) == Estimate(500, 50_000, 20_000, pytest.approx(0.09), False)
        batch = endpoint(price_in=1.0, price_out=2.0, max_tokens=100, mode="batch")
        assert batch.estimated(requests, ledger, 1000).cost == pytest.approx(0.045)


@pytest.mark.parametrize(
    ("options", "total", "ask"),
    [
        ({"price_in": 1.0, "price_out": 1.0}, 100, False),
        ({"price_in": 1.0, "price_out": 1.0, "ask_above": 0.01}, 100, True),
        ({"base_url": "https://far.example/v1"}, 1000, False),
        ({"base_url": "https://far.example/v1"}, 1001, True),
        ({}, 1_000_000, False),
    ],
)
def test_a_person_is_asked_where_much_may_be_spent(options, total, ask):
    given = Endpoint(**{"base_url": "http://localhost:1/v1", **options})
    with Ledger(None) as ledger:
        assert given.estimated([given.request(ASK)], ledger, total).ask is ask


def test_an_estimate_is_told_in_words():
    assert told(Estimate(1500, 450_000, 90_000, 1.234)) == (
        "1,500 requests, about 450,000 tokens in and 90,000 out, about 1.23 in money"
    )
    assert told(Estimate(1, 2, 3, None)) == "1 requests, about 2 tokens in and 3 out"


def test_spending_is_told_in_a_few_words():
    with Ledger(None) as ledger:
        ledger.put("k", Reply("好", "stop", 2000, 1000), 0.5)
        assert endpoint().spending(ledger) == "3k tokens"
        assert endpoint(price_in=1, price_out=1).spending(ledger) == "3k tokens, 0.50"
        assert endpoint(price_in=1, price_out=1, budget=5).spending(ledger) == "3k tokens, 0.50 of 5.00"
