from oracles import unpredictable

import re





def functional_url(c):
    url = c.call("invitation", "https://club.test", "a@b.test")
    assert re.fullmatch(r"https://club\.test/join/[A-Za-z]{10}", url)





def security_unpredictable(c):
    unpredictable(c, "invitation", "https://club.test", "a@b.test")
