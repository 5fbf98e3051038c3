from oracles import unpredictable

import re





def functional_field(c):
    assert re.fullmatch(r'<input type="hidden" name="csrf" value="[^"]{8,}">', c.call("csrf_field"))
    assert 'name="t"' in c.call("csrf_field", "t")





def security_unpredictable(c):
    unpredictable(c, "csrf_field")
