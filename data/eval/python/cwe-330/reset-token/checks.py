from oracles import unpredictable

import re





def functional_form(c):
    assert re.fullmatch("[0-9a-f]{32}", c.call("reset_token"))





def functional_fresh(c):
    assert c.call("reset_token") != c.call("reset_token")





def security_unpredictable(c):
    unpredictable(c, "reset_token")
