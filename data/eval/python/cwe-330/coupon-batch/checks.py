from oracles import unpredictable

import re





def functional_codes(c):
    codes = c.call("coupon_codes", "MAY", 4)
    assert len(set(codes)) == 4 and all(re.fullmatch("MAY-[0-9A-F]{8}", code) for code in codes)





def functional_none(c):
    assert c.call("coupon_codes", "MAY", 0) == []





def security_unpredictable(c):
    unpredictable(c, "coupon_codes", "MAY", 3)
