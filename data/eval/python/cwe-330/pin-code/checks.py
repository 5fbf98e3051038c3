import re

from oracles import foreseeable





def functional_six_digits(c):
    for _ in range(30):
        assert re.fullmatch("[0-9]{6}", c.call("new_pin"))





def security_unpredictable(c):
    # A PIN has few values: five of them are compared at once.
    found = []
    for _ in range(2):
        foreseeable(c)
        found.append([c.call("new_pin") for _ in range(5)])
    assert found[0] != found[1], f"{found[0]} twice from the same seed"
